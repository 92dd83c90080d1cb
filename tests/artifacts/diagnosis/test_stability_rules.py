"""What is said of steps without numbers, of going back, and of overflows."""

from __future__ import annotations

import drawn

from phinetune.artifacts.diagnosis import Facts, diagnose
from phinetune.artifacts.metrics import MetricsRow


def test_a_loss_that_was_no_number():
    found = drawn.found(drawn.with_losses(drawn.good(), {80: None, 81: None}))["not_a_number"]
    assert (found.severity, found.number) == ("warning", 2)
    assert "step 80" in found.sentence
    assert "--lr 0.0001" in found.advice


def test_steps_without_numbers_that_were_left_out_are_a_note_and_many_a_warning():
    one = drawn.found(drawn.with_skipped(drawn.good(), {80: None}))["not_a_number"]
    assert (one.severity, one.number, one.advice) == ("note", 1, "")
    assert "1 step gave no numbers, first step 80, and was left out" in one.sentence
    many = drawn.found(drawn.with_skipped(drawn.good(), {70: None, 80: None, 90: None}))["not_a_number"]
    assert (many.severity, many.number) == ("warning", 3)
    assert "--lr 0.0001" in many.advice


def test_going_back_is_told_with_how_it_ended():
    held = drawn.found(drawn.good(), Facts(rollbacks=1, stopped="finished"))["went_back"]
    assert held.severity == "note"
    assert "went back to an earlier state once" in held.sentence
    assert "--lr 0.0001" in held.advice
    gave_up = diagnose(
        drawn.with_skipped(drawn.good(), {98: None, 99: None, 100: None}), Facts(rollbacks=2, stopped="failed")
    )
    assert gave_up[0].name == "unstable"
    assert "twice" in gave_up[0].sentence
    assert "--lr 0.0001" in gave_up[0].advice
    assert not {"went_back", "unstable"} & drawn.found(drawn.good(), Facts(rollbacks=0)).keys()


def test_an_absurd_count_of_a_damaged_file_takes_no_memory():
    for stopped in ("finished", "failed"):
        assert {"went_back", "unstable"} & drawn.found(drawn.good(), Facts(rollbacks=10**15, stopped=stopped)).keys()


def test_overflows_now_and_then_are_normal_and_many_are_not():
    def lost(count: int) -> list[MetricsRow]:
        return [
            MetricsRow(r.step, r.epoch, r.train_loss, r.eval_loss, r.learning_rate, None, 100, 1.0)
            if 0 < r.step <= count
            else r
            for r in drawn.good()
        ]

    assert "overflows" not in drawn.found(lost(4))
    assert drawn.found(lost(20))["overflows"].number == 20
