"""The rules on runs that were really trained (runs/make.py): each on one that shows it, and none on a good one."""

from __future__ import annotations

from pathlib import Path

import pytest

from phinetune.artifacts.diagnosis import Diagnosis, diagnose_folder
from phinetune.run_folder import RunFolder

RUNS = Path(__file__).parent / "runs"
SHOWS = {
    "toy_spikes": {"spikes": "note"},
    "toy_stuck": {"stuck": "note"},
    "toy_no_better": {"no_better_than_before": "warning", "overfitting": "warning"},
    "toy_last_knows_more": {"last_knows_more": "warning", "gap": "note"},
    "toy_by_heart": {"by_heart": "good"},
    "toy_answers_cut": {"answers_cut": "warning"},
}
HEALTHY = "toy_healthy"


def _found(run: str) -> dict[str, Diagnosis]:
    return {diagnosis.name: diagnosis for diagnosis in diagnose_folder(RunFolder(RUNS / run))}


@pytest.mark.parametrize("run", SHOWS)
def test_a_rule_speaks_on_a_real_run_that_shows_it(run):
    found = _found(run)
    assert {name: found[name].severity for name in SHOWS[run] if name in found} == SHOWS[run]


def test_a_real_run_that_is_well_shows_none_of_it():
    found = _found(HEALTHY)
    assert not {name for names in SHOWS.values() for name in names if name != "by_heart"} & set(found)
    assert {"validation_follows", "smooth_fall"} <= set(found)
    assert not [each for each in found.values() if each.severity == "warning"]


@pytest.mark.parametrize("run", ["toy_stuck", "toy_answers_cut"])  # 0 of 100, and the 4 of 4 that were not cut
def test_a_real_run_is_not_praised_for_knowing_little_by_heart(run):
    assert "by_heart" not in _found(run)


@pytest.mark.parametrize("run", ["toy_stuck", "toy_no_better"])
def test_a_real_run_that_gained_little_is_not_praised_for_new_questions(run):
    assert not {"validation_follows", "levelled_off"} & set(_found(run))


def test_every_kept_run_is_looked_at():
    kept = {folder.name for folder in RUNS.iterdir() if folder.is_dir() and not folder.name.startswith("__")}
    assert kept == {*SHOWS, HEALTHY}
