"""What held-out losses show, and what they do not."""

from __future__ import annotations

import math

import drawn
import pytest

from phinetune.artifacts.diagnosis import Facts
from phinetune.artifacts.metrics import MetricsRow


def test_validation_that_rises_names_the_step_that_was_kept():
    def valley(now: float) -> float:
        return 1.5 + 6 * (now - 0.4) ** 2

    found = drawn.found(drawn.rows(drawn.noisy(drawn.fall(3, 0.3), 0.1), valley), Facts(lora_dropout=0.05))[
        "overfitting"
    ]
    assert (found.severity, found.number) == ("warning", 40)
    assert "rises since step 40, from 1.50 to 3.66" in found.sentence
    assert "Step 40 is the one that was kept" in found.sentence
    assert "--epochs 2)" in found.advice
    assert "--lora-dropout 0.1" in found.advice


def test_a_rise_is_not_praised_beside_and_few_held_out_pairs_are_told():
    def valley(now: float) -> float:
        return 1.5 + 6 * (now - 0.4) ** 2 + (2 if now == 0 else 0)

    rows = drawn.rows(drawn.noisy(drawn.fall(3, 1.2), 0.1), valley)
    many, few, one = (drawn.found(rows, Facts(validation_pairs=pairs)) for pairs in (10, 9, 1))
    for found in (many, few, one):
        assert not {"validation_follows", "levelled_off", "gap"} & set(found)
    assert "chance" not in many["overfitting"].sentence
    assert "3 to 5 ways" not in many["overfitting"].advice
    assert "only 9 held-out pairs chose it, so it may be chance" in few["overfitting"].sentence
    assert "ask each in 3 to 5 ways" in few["overfitting"].advice
    assert "only 1 held-out pair chose it" in one["overfitting"].sentence
    assert "rests on 1 pair and depends on which it is." in one["few_held_out"].sentence


def test_a_training_loss_that_climbs_is_not_called_long_enough():
    def climbs(now: float) -> float:
        return 3 - 8 * now if now < 0.2 else min(1.4 + 6 * (now - 0.2), 6)

    found = drawn.found(drawn.rows(drawn.noisy(climbs, 0.02), lambda now: 0.8 + 2.1 * math.exp(-12 * now)))
    assert "learning_rate_too_high" in found
    assert "levelled_off" not in found


@pytest.mark.parametrize(("dropout", "more"), [(0.3, "(--lora-dropout 0.5)"), (0.5, None), (0.6, None)])
def test_advice_on_overfitting_is_another_run_than_the_last_one(dropout, more):
    def valley(now: float) -> float:
        return 1.5 + 6 * (now - 0.5) ** 2

    rows = drawn.rows(drawn.noisy(drawn.fall(3, 0.3), 0.1), valley)
    advice = drawn.found(rows, Facts(lora_dropout=dropout))["overfitting"].advice
    assert "--epochs 2.5" in advice
    assert (more in advice) if more else ("dropout" not in advice)


@pytest.mark.parametrize("last", [1.01, 1.02])
def test_a_last_validation_that_is_a_little_worse_is_no_overfitting(last):
    def measured(now: float) -> float:
        return drawn.fall(3, 1.0)(now) * (last if now == 1 else 1)

    assert "overfitting" not in drawn.found(drawn.rows(drawn.noisy(drawn.fall(3, 0.9), 0.1), measured))


def test_a_rise_that_is_nothing_beside_what_was_won_is_no_overfitting():
    def measured(now: float) -> float:
        return 0.05 + 0.01 * now if now else 3.4

    assert "overfitting" not in drawn.found(drawn.rows(drawn.noisy(drawn.fall(3, 0.05), 0.1), measured))


def test_a_wide_gap_is_told_and_a_normal_one_is_not():
    wide = drawn.found(drawn.rows(drawn.noisy(drawn.fall(3, 0.5), 0.1), drawn.fall(2.9, 2.2)), Facts(lora_r=16))["gap"]
    assert wide.severity == "warning"
    assert wide.number == pytest.approx(1.7, abs=0.15)
    assert "--lora-r 8" in wide.advice
    assert "gap" not in drawn.found(drawn.rows(drawn.noisy(drawn.fall(3, 0.6), 0.1), drawn.fall(2.9, 0.8)))
    near_zero = drawn.found(drawn.rows(drawn.noisy(drawn.fall(3.6, 0.01), 0.1), drawn.fall(3.4, 0.08)))
    assert "gap" not in near_zero


def test_a_gap_beyond_the_usual_is_noted_although_much_was_won_and_not_praised_without_it():
    found = drawn.found(drawn.rows(drawn.noisy(drawn.fall(3, 1.0), 0.05), drawn.fall(2.9, 1.5)), Facts(lora_r=16))
    assert found["gap"].severity == "note"
    assert found["gap"].number == pytest.approx(0.5, abs=0.1)
    assert "followed, from 2.90 to 1.50, but not all the way" in found["gap"].sentence
    assert "0.1 to 0.3 is usual" in found["gap"].sentence
    assert "--lora-r 8" in found["gap"].advice
    assert "validation_follows" not in found
    usual = drawn.found(drawn.rows(drawn.noisy(drawn.fall(3, 1.3), 0.05), drawn.fall(2.9, 1.5)))
    assert "gap" not in usual
    assert "validation_follows" in usual
    assert "gap" not in drawn.found(
        drawn.rows(drawn.noisy(drawn.fall(3, 1.0), 0.05), drawn.fall(2.9, 1.5)), Facts(validation_pairs=9)
    )
    # A tenth of a loss of 9 is more than 0.3, and nothing.
    assert "gap" not in drawn.found(drawn.rows(drawn.noisy(drawn.fall(12, 9), 0.01), drawn.fall(12, 9.6)))


@pytest.mark.parametrize("seed", range(5))
def test_a_loss_that_hardly_moves_means_a_learning_rate_too_low(seed):
    found = drawn.found(drawn.rows(drawn.noisy(drawn.fall(3, 2.95, 1), 0.1, seed), drawn.fall(2.9, 2.86, 1), rate=1e-6))
    assert set(found) == {"learning_rate_too_low"}
    assert "--lr 5e-06" in found["learning_rate_too_low"].advice


def test_validation_that_got_worse_from_the_start_is_not_called_unmoved():
    found = drawn.found(drawn.rows(drawn.noisy(drawn.fall(3, 2.9, 1), 0.02), lambda now: 2.9 + 2 * min(now, 0.2)))
    assert found["no_better_than_before"].severity == "warning"
    assert "learning_rate_too_low" not in found


def test_a_held_out_loss_that_rises_a_little_is_not_called_unmoved():
    found = drawn.found(drawn.rows(drawn.noisy(drawn.fall(1.95, 1.8, 1), 0.01), lambda now: 1.84 + 0.08 * now))
    assert "overfitting" in found
    assert "learning_rate_too_low" not in found


def test_with_few_steps_it_is_the_steps():
    rows = [
        row
        for row in drawn.rows(drawn.noisy(drawn.fall(3, 2.95, 1), 0.02), drawn.fall(2.9, 2.86, 1), every=5)
        if row.step <= 10
    ]
    found = drawn.found(rows)
    assert found["too_few_steps"].number == 10
    assert "learning_rate_too_low" not in found


def test_a_run_that_was_still_falling_was_too_short():
    straight = drawn.found(drawn.rows(drawn.noisy(drawn.fall(3, 0, 0.7), 0.1), drawn.fall(2.9, 0, 0.6)))["too_short"]
    assert straight.number > 0.5
    assert "--epochs 10" in straight.advice
    stopped = drawn.found(
        drawn.rows(drawn.noisy(drawn.fall(3, 0, 0.7), 0.1), drawn.fall(2.9, 0, 0.6)), Facts(stopped="interrupted")
    )
    assert "--resume" in stopped["too_short"].advice


def test_held_out_pairs_that_win_nothing():
    found = drawn.found(drawn.rows(drawn.noisy(drawn.fall(3, 2.0), 0.05), lambda now: 2.9 - 0.01 * now))
    assert found["no_better_than_before"].severity == "warning"
    assert "2.90 before, 2.89 at best" in found["no_better_than_before"].sentence
    assert not {"validation_follows", "learning_rate_too_low"} & set(found)


def test_a_run_without_held_out_pairs_says_that_nobody_knows():
    rows = [MetricsRow(*[*list(vars(row).values())[:3], None, *list(vars(row).values())[4:]]) for row in drawn.good()]
    found = drawn.found(rows[1:])
    assert set(found) == {"nothing_held_out", "smooth_fall"}
