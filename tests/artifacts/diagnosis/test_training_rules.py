"""What training losses show, and what they do not."""

from __future__ import annotations

from dataclasses import replace

import drawn
import pytest

from phinetune.artifacts.diagnosis import Facts


def test_spikes_are_counted_and_one_is_only_a_note():
    one = drawn.found(drawn.with_losses(drawn.good(), {60: 4.0}))
    assert (one["spikes"].severity, one["spikes"].number) == ("note", 1)
    assert "step 60" in one["spikes"].sentence
    assert "smooth_fall" not in one
    many = drawn.found(drawn.with_losses(drawn.good(), {30: 4.0, 50: 5.0, 70: 4.0}))["spikes"]
    assert (many.severity, many.number) == ("warning", 3)
    assert "30, 50, 70" in many.sentence
    assert "max_grad_norm" in many.advice


def test_a_hard_batch_at_the_end_of_a_low_curve_is_no_spike():
    assert "spikes" not in drawn.found(
        drawn.with_losses(drawn.rows(drawn.noisy(drawn.fall(3.6, 0.01), 0.1), drawn.fall(3.4, 0.08)), {90: 0.06})
    )


def test_a_spike_that_was_left_out_is_told_as_such():
    found = drawn.found(drawn.with_skipped(drawn.good(), {80: 9.0}))["spikes"]
    assert "in step 80; 1 of them was left out, and came back" in found.sentence


def test_a_training_loss_that_climbs_means_a_learning_rate_too_high():
    def climbs(now: float) -> float:
        return 3 - 4 * now if now < 0.2 else min(2.2 + 6 * (now - 0.2), 6)

    found = drawn.found(drawn.rows(drawn.noisy(climbs, 0.1), lambda now: climbs(now) + 0.1))
    assert found["learning_rate_too_high"].severity == "warning"
    assert "--lr 4e-05" in found["learning_rate_too_high"].advice
    assert not {"overfitting", "smooth_fall", "too_short", "learning_rate_too_low"} & set(found)


def test_a_loss_that_leaps_up_at_once_is_seen_although_no_calm_step_came_before():
    def leapt(now: float) -> float:
        return 2.9 if now <= 0.01 else 7 - 3 * now

    found = drawn.found(drawn.rows(drawn.noisy(leapt, 0.05), lambda now: leapt(now) if now else 2.8))
    assert "learning_rate_too_high" in found


def test_training_pairs_that_are_harder_than_the_held_out_ones_are_no_rise():
    """The well-known recipe: training from 4.18 to 2.13, validation from 2.82 to 2.35, 71 % of the steps warm-up."""
    rows = drawn.rows(drawn.noisy(drawn.fall(4.18, 2.05, 3), 0.1), drawn.fall(2.82, 2.32, 3), warmup=71)
    assert set(drawn.found(rows)) == {"warmup_too_long", "validation_follows", "smooth_fall", "levelled_off"}


def test_a_loss_held_up_while_the_rate_is_high():
    def shelf(now: float) -> float:
        return 3 - 10 * min(now, 0.1) - 2 * max(0.0, now - 0.6)

    found = drawn.found(drawn.rows(drawn.noisy(shelf, 0.02), shelf))
    assert "held_up" in found
    assert "too_short" not in found


def test_a_loss_that_stays_high_is_stuck_and_the_advice_names_a_higher_rate_and_rank():
    found = drawn.found(
        drawn.rows(drawn.noisy(drawn.fall(3, 2.75, 20), 0.02), drawn.fall(2.9, 2.65, 20)), Facts(lora_r=16)
    )["stuck"]
    assert found.severity == "note"
    assert "--lr 0.0005" in found.advice
    assert "--lora-r 32" in found.advice


def test_a_stuck_loss_is_told_once_and_not_praised_beside():
    found = drawn.found(drawn.rows(drawn.noisy(drawn.fall(3, 2.72, 20), 0.02), drawn.fall(3, 2.72, 20)))
    assert "The held-out loss stays high: it fell by 9%, to 2.72" in found["stuck"].sentence
    assert "validation_follows" not in found


def _without_held_out(rows):
    return [replace(row, eval_loss=None) for row in rows if row.step]


@pytest.mark.parametrize("seed", range(5))
def test_a_training_loss_alone_shows_that_it_is_stuck(seed):
    found = drawn.found(
        _without_held_out(drawn.rows(drawn.noisy(drawn.fall(3, 2.7, 8), 0.02, seed), drawn.fall(3, 2.8)))
    )
    assert set(found) == {"stuck", "nothing_held_out"}
    assert "The training loss stays high: it fell by only" in found["stuck"].sentence
    assert "a higher learning rate (--lr 0.0005), more epochs (--epochs 10)" in found["stuck"].advice


@pytest.mark.parametrize("train", [drawn.fall(3, 0.6), drawn.fall(3, 2.0, 1), drawn.fall(0.5, 0.45, 20)])
def test_a_training_loss_that_falls_far_or_on_or_is_low_is_not_stuck(train):
    assert "stuck" not in drawn.found(_without_held_out(drawn.rows(drawn.noisy(train, 0.02), train)))
