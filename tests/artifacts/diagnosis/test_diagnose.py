"""What a run shows, in words: how the rules come together, on good, short and empty runs, and from a folder."""

from __future__ import annotations

import json

import drawn
import pytest

from phinetune.artifacts.diagnosis import RULES, Facts, diagnose, diagnose_folder
from phinetune.artifacts.metrics import MetricsLog, MetricsRow
from phinetune.errors import RunError
from phinetune.events import StepDone, Validated
from phinetune.run_folder import RunFolder


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("share", [0.02, 0.1, 0.2])
@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_a_good_run_is_called_good_and_nothing_else_however_noisy_its_steps(seed, share, scale):
    found = drawn.found(drawn.good(share, seed, scale))
    assert set(found) == {"validation_follows", "smooth_fall", "levelled_off"}
    assert all(diagnosis.severity == "good" and not diagnosis.advice for diagnosis in found.values())


def test_the_number_behind_each_good_sign_is_in_its_words():
    found = drawn.found(drawn.good(0.0))
    assert "from 2.90 to 0.76" in found["validation_follows"].sentence
    assert found["levelled_off"].number == 2.5
    assert "2.5 of 5 epochs" in found["levelled_off"].sentence
    assert found["smooth_fall"].number == pytest.approx(1 - 0.6 / 3, abs=0.1)


def test_a_run_without_a_single_taken_step_says_why():
    rows = [MetricsRow(step, step / 10, None, None, None, None, 100, 1.0) for step in (1, 2, 3)]
    assert [d.name for d in diagnose(rows, Facts(rollbacks=2, stopped="failed"))] == ["unstable", "not_a_number"]


def test_the_worst_stands_first_and_bad_news_come_with_advice():
    found = diagnose(drawn.with_losses(drawn.good(), {60: 4.0}), Facts(in_both_parts=1, train_pairs=80))
    assert [d.severity for d in found] == sorted((d.severity for d in found), key=["warning", "note", "good"].index)
    assert found[0].name == "leak"
    assert all(bool(d.advice) == (d.severity != "good") for d in found)
    assert len({rule.__name__ for rule in RULES}) == len(RULES) > 20


@pytest.mark.parametrize("count", range(13))
def test_short_and_empty_runs_are_read_without_a_fuss(count):
    assert isinstance(diagnose(drawn.good()[: count + 1]), list)
    assert diagnose(drawn.good()[:1]) == diagnose([]) == []


def test_a_run_folder_alone_is_enough(tmp_path):
    folder = RunFolder(tmp_path)
    log = MetricsLog(folder)
    for row in drawn.good():
        if row.step:
            log.consume(StepDone(row.step, row.epoch, row.train_loss, row.learning_rate, 1.0, 100, 1.0))
        if row.eval_loss is not None:
            log.consume(Validated(row.step, row.epoch, row.eval_loss, is_best=True, tokens=1, seconds=1.0))
    log.write()
    assert diagnose_folder(folder) == diagnose(drawn.good())
    folder.metrics_json.write_text(json.dumps({"train_pairs": 50, "answers_cut": 4, "validation_pairs": 30}))
    folder.config_json.write_text(json.dumps({"settings": {"data": {"max_length": 64}}}))
    found = {d.name: d for d in diagnose_folder(folder, in_both_parts=2, asked=10, ended=10)}
    assert {"too_few_pairs", "answers_cut", "leak", "learned_to_stop"} < set(found)
    assert "--max-length 128" in found["answers_cut"].advice
    folder.config_json.write_text("[")
    with pytest.raises(RunError, match=r"training_config.json is damaged"):
        diagnose_folder(folder)


def test_one_word_for_the_loss_on_pairs_that_were_held_out():
    said = [
        each
        for rows in (drawn.good(), drawn.risen())
        for each in diagnose(rows, drawn.by_heart(3, 36, validation_pairs=5))
    ]
    assert said
    assert not [each for each in said if "alidation" in each.sentence + each.advice]
