"""Dropout: every element with the share asked for, independently of its neighbours, however it is drawn."""

from __future__ import annotations

import pytest
import torch

from phinetune.model import dropout
from phinetune.model.dropout import HashDrops, MaskDrops, PlaceDrops
from phinetune.model.ops import native

BF16 = pytest.param(torch.bfloat16, marks=pytest.mark.skipif(native.load() is None, reason="needs a C compiler"))
DTYPES = [torch.float32, BF16]


def _kept(shape, share, seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    x = torch.ones(shape, dtype=dtype)
    return dropout.draw(x, share).dropped(x).float()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("share", [0.001, 0.05, 0.29, 0.5, 0.9])
def test_drops_the_share_asked_for(share, dtype):
    kept = _kept((2000, 100), share, dtype=dtype)
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    # 200,000 draws: five standard deviations of their mean
    assert float(kept.mean()) == pytest.approx(1 - share, abs=5 * (share * (1 - share) / 200_000) ** 0.5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("share", [0.05, 0.2])
def test_neighbours_are_dropped_independently(share, dtype):
    """Sampling a fixed number of places, or a weak hash of them, would show in these moments."""
    dropped = torch.stack([1 - _kept((40, 50), share, seed, dtype) for seed in range(400)])
    for distance in (1, 2, 16, 50):
        flat = dropped.flatten(1)
        pairs = (flat[:, distance:] * flat[:, :-distance]).mean()
        count = 400 * (2000 - distance)
        assert float(pairs) == pytest.approx(share**2, abs=5 * (share**2 / count) ** 0.5)
    across_seeds = (dropped[1:] * dropped[:-1]).mean()
    assert float(across_seeds) == pytest.approx(share**2, abs=5 * (share**2 / (399 * 2000)) ** 0.5)
    per_draw = dropped.sum((1, 2))
    variance = 2000 * share * (1 - share)
    assert float(per_draw.var()) == pytest.approx(variance, rel=5 * (2 / 400) ** 0.5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_generator_decides_and_nothing_else(dtype):
    first, again, other = (_kept((30, 40), 0.1, seed, dtype) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_no_dropout_draws_nothing_and_copies_nothing():
    x = torch.ones(3, 4)
    state = torch.get_rng_state()
    assert dropout.draw(x, 0.0).dropped(x) is x
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("dtype", "share", "kind"),
    [
        (torch.float32, 0.2, PlaceDrops),
        (torch.float32, 0.6, MaskDrops),
        pytest.param(torch.bfloat16, 0.2, HashDrops, marks=BF16.marks),
    ],
)
def test_the_same_places_are_dropped_again_when_adding_and_the_original_stays(dtype, share, kind):
    torch.manual_seed(0)
    x = torch.randn(50, 60).to(dtype)
    before = x.clone()
    drops = dropout.draw(x, share)
    assert type(drops) is kind
    dropped = drops.dropped(x)
    assert torch.equal(x, before)
    total = torch.randn(50, 60).to(dtype)
    expected = total + dropped
    assert torch.equal(drops.add_dropped_(total, x.clone()), expected)
