"""Dropout as the places that are dropped, not as a mask of all that are kept.

    x  a b c d e f g h       5 % of the elements are dropped: drawing those alone costs a twentieth of
           0       0         drawing a number for every element

On a CPU the number of draws N is Poisson with mean -n ln(1 - p), and each draw hits a uniform place, again and again
if it so happens. Hits of one element are then independent Poisson counts with mean -ln(1 - p), and an element is
never hit with probability exactly 1 - p ("Poisson splitting"): every element is dropped with probability p,
independently of all others, as with a mask. For 528 x 576 elements on two AVX512 cores: 475 µs for the mask,
71 µs for the places.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

_SPARSE_BELOW = 0.3  # of larger shares a mask is cheaper


@dataclass(frozen=True)
class Drops:
    """What is dropped of a tensor: flat places, or a bool mask of the kept elements."""

    places: torch.Tensor | None = None
    kept: torch.Tensor | None = None

    def dropped(self, x: torch.Tensor) -> torch.Tensor:
        """x without the dropped elements: a new tensor, or x itself when nothing is dropped."""
        return x if self.places is None and self.kept is None else self.drop_from_(x.clone())

    def drop_from_(self, x: torch.Tensor) -> torch.Tensor:
        """Set the dropped elements of x (contiguous, of the shape drawn for) to 0, in place."""
        if self.places is not None:
            x.view(-1).index_fill_(0, self.places, 0)
        if self.kept is not None:
            x.mul_(self.kept)
        return x


def draw(x: torch.Tensor, share: float) -> Drops:
    """Choose elements of x's shape to drop, each with probability `share`, from torch's generator of x's device."""
    if share == 0:
        return Drops()
    if x.device.type == "cpu" and share < _SPARSE_BELOW:
        count = int(torch.poisson(torch.tensor(-x.numel() * math.log1p(-share), dtype=torch.float64)))
        return Drops(places=torch.randint(x.numel(), (count,)))
    return Drops(kept=torch.rand(x.shape, device=x.device) >= share)
