"""The rules on runs that were really trained (runs/make.py): each on one that shows it, and none on a good one."""

from __future__ import annotations

from pathlib import Path

import pytest

from phinetune.api.diagnose import diagnosis_of
from phinetune.artifacts.diagnosis import Diagnosis
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
# All that is said of a run that went wrong: what it was, and no praise that this makes worthless.
SHOWS_THIS_ALONE = {
    "toy_unstable": {"unstable": "warning", "not_a_number": "warning"},
    "toy_went_back": {"went_back": "note", "too_short": "note"},
    "toy_writes_on": {
        "does_not_stop": "warning",
        "answers_cut": "warning",
        "validation_follows": "good",
        "smooth_fall": "good",
        "levelled_off": "good",
    },
    "toy_leak": {"leak": "warning", "learned_to_stop": "good", "smooth_fall": "good"},
}
OF_ANY_SMALL_SHEET = {"too_few_pairs", "few_held_out"}


def _found(run: str) -> dict[str, Diagnosis]:
    return {diagnosis.name: diagnosis for diagnosis in diagnosis_of(RunFolder(RUNS / run))}


@pytest.mark.parametrize("run", SHOWS)
def test_a_rule_speaks_on_a_real_run_that_shows_it(run):
    found = _found(run)
    assert {name: found[name].severity for name in SHOWS[run] if name in found} == SHOWS[run]


@pytest.mark.parametrize("run", SHOWS_THIS_ALONE)
def test_a_real_run_that_went_wrong_shows_just_what_a_person_would_say_of_it(run):
    found = {name: each.severity for name, each in _found(run).items() if name not in OF_ANY_SMALL_SHEET}
    assert found == SHOWS_THIS_ALONE[run]


def test_a_real_run_that_never_held_is_advised_less_than_the_rates_that_it_tried():
    found = _found("toy_unstable")  # at 0.9, 0.45 and 0.225
    assert "(--lr 0.11)" in found["unstable"].advice
    assert "(--lr 0.11)" in found["not_a_number"].advice


def test_a_real_run_that_held_at_a_lower_rate_is_advised_that_and_no_higher_one():
    found = _found("toy_went_back")  # at 0.07, then twice half
    assert "--lr 0.018" in found["went_back"].advice
    assert "higher" not in found["too_short"].advice


def test_a_real_run_of_cut_answers_is_not_told_to_train_longer():
    assert "Train longer" not in _found("toy_writes_on")["does_not_stop"].advice


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
    assert kept == {*SHOWS, *SHOWS_THIS_ALONE, HEALTHY}
