"""Dropout by places: every element with the share asked for, independently of its neighbours."""

from __future__ import annotations

import pytest
import torch

from phinetune.model import dropout


def _kept(shape, share, seed=0):
    torch.manual_seed(seed)
    x = torch.ones(shape)
    return dropout.draw(x, share).drop_from_(x)


@pytest.mark.parametrize("share", [0.001, 0.05, 0.29, 0.5, 0.9])
def test_drops_the_share_asked_for(share):
    kept = _kept((2000, 100), share)
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    # 200,000 draws: five standard deviations of their mean
    assert float(kept.mean()) == pytest.approx(1 - share, abs=5 * (share * (1 - share) / 200_000) ** 0.5)


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_neighbours_are_dropped_independently(share):
    """Sampling a fixed number of places without replacement, or hitting some twice, would show in these moments."""
    dropped = torch.stack([1 - _kept((40, 50), share, seed) for seed in range(400)])
    pairs = (dropped[:, :, 1:] * dropped[:, :, :-1]).mean()
    count = 400 * 40 * 49
    assert float(pairs) == pytest.approx(share**2, abs=5 * (share**2 / count) ** 0.5)
    per_draw = dropped.sum((1, 2))
    variance = 2000 * share * (1 - share)
    assert float(per_draw.var()) == pytest.approx(variance, rel=5 * (2 / 400) ** 0.5)


def test_the_generator_decides_and_nothing_else():
    assert torch.equal(_kept((30, 40), 0.1, seed=1), _kept((30, 40), 0.1, seed=1))
    assert not torch.equal(_kept((30, 40), 0.1, seed=1), _kept((30, 40), 0.1, seed=2))


def test_no_dropout_draws_nothing_and_copies_nothing():
    x = torch.ones(3, 4)
    state = torch.get_rng_state()
    assert dropout.draw(x, 0.0).dropped(x) is x
    assert torch.equal(torch.get_rng_state(), state)


def test_a_dropped_copy_leaves_the_original_alone():
    x = torch.ones(50, 50)
    torch.manual_seed(0)
    assert dropout.draw(x, 0.2).dropped(x).min() == 0
    assert x.min() == 1
