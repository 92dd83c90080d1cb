"""Intervals that hold what they promise, and a test that is not fooled by chance."""

from __future__ import annotations

import numpy as np
import pytest

from phinetune.use.significance import contrast, estimate, p_value


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
    alarms = sum(p_value(random.normal(size=49), random.normal(size=49), seed=seed) < 0.05 for seed in range(100))
    assert alarms <= 12
    base = random.normal(size=49)
    assert p_value(base, base + random.normal(0.5, 0.5, size=49)) < 0.001
    assert p_value(base, base) == 1


def test_the_same_seed_gives_the_same_interval():
    assert estimate([0.1, 0.5, 0.9], seed=3) == estimate([0.1, 0.5, 0.9], seed=3)


def test_the_test_is_of_the_difference_that_is_shown():
    # Most answers, short ones, are a little better, and four long ones much worse.
    base, tuned, tokens = [1.0] * 40, [0.9] * 36 + [3.0] * 4, [2.0] * 36 + [200.0] * 4
    found = contrast(base, tuned, tokens)
    assert found.difference.mean == pytest.approx(np.average(np.subtract(tuned, base), weights=tokens))
    # Of the 16 ways to flip the four that decide, the two with all on one side are as far from 0.
    assert found.p_value == pytest.approx(2 / 16, abs=0.02)
    assert p_value(base, tuned) > 0.2  # of every answer alike, which is another quantity


def test_weights_that_are_all_alike_change_no_p_value():
    random = np.random.default_rng(3)
    base, tuned = random.normal(size=30), random.normal(0.3, size=30)
    assert p_value(base, tuned, [7.0] * 30) == p_value(base, tuned)


def test_nine_questions_are_too_few_and_ten_are_not():
    assert [contrast([0.0] * count, [1.0] * count).too_few for count in (1, 9, 10, 200)] == [True, True, False, False]
