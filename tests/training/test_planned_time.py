"""The time of a planned run, its steps and what stands around them, beside the runs that it was measured by."""

from __future__ import annotations

from dataclasses import replace

import pytest

from phinetune.model.find_shape import KNOWN
from phinetune.model.hardware import pick
from phinetune.model.shape import adapter_shape, read_shape
from phinetune.settings import TrainSettings
from phinetune.training.planned_time import time_of
from phinetune.training.planning import PairTokens, Scene, Workload, count_steps, rows_of

# As chatterbot_en: 441 pairs in rows of 549 tokens on average, 49 held out.
PAIRS = tuple(PairTokens(24 + 5 * i % 21, 12) for i in range(441))


def _scene(device="t4", pairs=PAIRS, name="microsoft/phi-2", **settings) -> Scene:
    shape = read_shape(KNOWN[name], name)
    here = pick(device)
    return Scene(
        shape=shape,
        adapter=adapter_shape(shape, 16, "all"),
        workload=Workload(pairs, pairs[:49], cut=0, longest_uncut=50, is_exact=True),
        settings=TrainSettings(**settings),
        device=here,
        dtype=here.dtype,
    )


def _time(scene, **measured):
    return time_of(scene, count_steps(scene, rows_of(scene)), **measured)


def test_the_whole_job_on_an_h200_is_what_was_measured():
    """14.3 s: 140 steps 6.8 s with 9 recordings of 0.26, 8 validations 1.1, the check 2.1 where kernels were compiled
    and 7.1 where not; the rest for 7 checkpoints, and for what is asked at the end."""
    scene = _scene("h200", patience=0)
    steps, time = count_steps(scene, rows_of(scene)), _time(scene)
    assert (steps.total, steps.validations, steps.saves) == (140, 8, 7)
    assert time.training + 9 * time.recording / len(steps.graphs) == pytest.approx(6.8, rel=0.15)
    assert time.validation == pytest.approx(1.1, abs=0.3)
    assert time.checkpoints == pytest.approx(4.0, abs=1.0)


def test_checkpoints_are_waited_for_where_steps_are_short_and_always_on_a_processor():
    slow, fast = (_time(_scene("h200"), measured_tokens_per_s=speed).checkpoints for speed in (1000.0, 20_000.0))
    alone = _time(_scene("cpu"), measured_tokens_per_s=1000.0).checkpoints
    assert slow < fast < alone


def test_time_follows_the_measured_speed_where_there_is_one():
    scene = _scene()
    steps = count_steps(scene, rows_of(scene))
    measured = _time(scene, measured_tokens_per_s=100.0)
    assert measured.training == steps.tokens / 100
    assert "measured here" in measured.basis
    assert _time(scene).basis.startswith("an estimate, not measured")
    assert _time(_scene("h200")).basis.startswith("an estimate: ")
    assert _time(scene).total > 0
    twice = replace(scene, settings=TrainSettings(epochs=10))
    assert _time(twice).training == pytest.approx(2 * _time(scene).training, rel=0.01)


def test_all_parts_are_in_the_total():
    time = _time(_scene("h200"))
    parts = (time.begin, time.training, time.recording, time.validation, time.checkpoints)
    assert all(part > 0 for part in parts)
    assert time.total == pytest.approx(sum(parts))


def test_a_cpu_records_nothing_and_checks_at_its_own_speed():
    slow, fast = (_time(_scene("cpu"), measured_tokens_per_s=speed) for speed in (10.0, 1000.0))
    assert slow.recording == fast.recording == 0
    assert slow.begin - fast.begin == pytest.approx(3 * (24 + 44) * (1 / 10 - 1 / 1000))
    assert slow.checkpoints == fast.checkpoints > 0


def test_where_no_rate_is_known_nothing_is_guessed():
    apple = replace(_scene(), device=replace(pick("cpu"), kind="mps", name="Apple GPU"))
    time = _time(apple)
    assert time.total is None
    assert "--measure" in time.basis
