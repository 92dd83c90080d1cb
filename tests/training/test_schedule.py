from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phinetune.settings import TrainSettings
from phinetune.training.schedule import plan


def test_the_guides_run_warms_up_for_a_tenth_of_its_steps_not_for_a_hundred():
    schedule = plan(TrainSettings(), steps_per_epoch=28)
    assert (schedule.total_steps, schedule.warmup_steps) == (140, 14)


def test_a_long_run_warms_up_for_a_hundred_steps_and_a_hand_set_number_stands():
    assert plan(TrainSettings(), steps_per_epoch=1000).warmup_steps == 100
    assert plan(TrainSettings(warmup_steps=100), steps_per_epoch=28).warmup_steps == 100


def test_rate_rises_to_its_peak_and_falls_in_a_straight_line_towards_zero():
    schedule = plan(TrainSettings(learning_rate=1.0 - 1e-9, warmup_steps=4, epochs=1), steps_per_epoch=10)
    rates = [schedule.learning_rate(step) for step in range(1, 11)]
    assert rates[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 5 / 6])
    assert rates[6:] == pytest.approx([4 / 6, 3 / 6, 2 / 6, 1 / 6])


@given(st.integers(1, 400), st.floats(0.1, 12), st.one_of(st.none(), st.integers(0, 5000)))
def test_no_step_is_wasted_at_rate_zero_and_none_exceeds_the_peak(steps_per_epoch, epochs, warmup):
    schedule = plan(TrainSettings(epochs=epochs, warmup_steps=warmup), steps_per_epoch)
    rates = [schedule.learning_rate(step) for step in range(1, schedule.total_steps + 1)]
    assert all(0 < rate <= schedule.peak_learning_rate * (1 + 1e-12) for rate in rates)
    assert max(rates) == pytest.approx(schedule.peak_learning_rate)


def test_validates_and_saves_every_fifty_steps_and_at_the_end_of_every_epoch():
    schedule = plan(TrainSettings(), steps_per_epoch=28)
    due = [step for step in range(1, 141) if schedule.validates_at(step)]
    assert due == [28, 50, 56, 84, 100, 112, 140] == [s for s in range(1, 141) if schedule.saves_at(s)]


def test_intervals_set_by_hand_stand_and_the_last_step_is_always_due():
    schedule = plan(TrainSettings(eval_steps=30, save_steps=60), steps_per_epoch=28)
    assert [s for s in range(1, 141) if schedule.validates_at(s)] == [30, 60, 90, 120, 140]
    assert [s for s in range(1, 141) if schedule.saves_at(s)] == [60, 120, 140]
