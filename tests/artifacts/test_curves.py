from __future__ import annotations

import numpy as np
import pytest

from phinetune.artifacts.curves import smooth_trend


def test_the_trend_follows_a_straight_line_to_its_ends():
    line = np.linspace(4, 1, 50)
    assert smooth_trend(line, 7) == pytest.approx(line)


def test_the_trend_takes_away_noise_and_wild_steps():
    rng = np.random.default_rng(1)
    values = 2 + rng.normal(0, 0.1, 200)
    values[100] = 31.0
    trend = smooth_trend(values, 15)
    assert np.abs(trend - 2).max() < 0.15
    assert trend.std() < 0.05
