"""Intervals that hold what they promise, and a test that is not fooled by chance."""

from __future__ import annotations

import numpy as np
import pytest

from phinetune.use.significance import estimate, p_value


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(1)
    held = 0
    for seed in range(100):
        found = estimate(random.normal(0.5, 0.2, size=49).tolist(), seed=seed)
        assert found.low < found.mean < found.high
        held += found.low <= 0.5 <= found.high
    assert 86 <= held <= 100


def test_it_is_as_wide_as_theory_says():
    values = np.random.default_rng(0).normal(size=400)
    found = estimate(values.tolist())
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.1)


def test_weights_count():
    assert estimate([1.0, 3.0], weights=[3.0, 1.0]).mean == pytest.approx(1.5)


def test_chance_is_rarely_called_a_difference_and_a_difference_is_found():
    random = np.random.default_rng(2)
    alarms = sum(p_value(random.normal(size=49), random.normal(size=49), seed) < 0.05 for seed in range(100))
    assert alarms <= 12
    base = random.normal(size=49)
    assert p_value(base, base + random.normal(0.5, 0.5, size=49)) < 0.001
    assert p_value(base, base) == 1


def test_the_same_seed_gives_the_same_interval():
    assert estimate([0.1, 0.5, 0.9], seed=3) == estimate([0.1, 0.5, 0.9], seed=3)
