"""What stands beside the frozen layers of a group: the thin products of their adapters with what the layers read.

    low = drop(x) Aᵀ  [T, R]       g_A = g_lowᵀ drop(x)  [R, n]       g_x + drop(g_low A)  [T, n]

x is the group's input z, or gelu(z). All three are bound by memory: R is a few dozen, n thousands. On a GPU each is one
kernel, which drops on the fly and computes gelu(z) again rather than keep it: no dropped copy is written, and Phi-2
keeps a third less for its way back. Everywhere else, and as the reference: plain products of a dropped copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from phinetune.model import dropout
from phinetune.model.dropout import Drops, HashDrops
from phinetune.model.ops import PlainOps, ops_for
from phinetune.model.ops.gpu import HIGHEST_RANK, GpuOps


class ThinProducts(Protocol):
    """Of a group whose input is z [T, n], with A's side by side `down` [R, n]; `gelu`: it reads gelu(z)."""

    @property
    def keeps_input(self) -> bool:
        """Whether x has to be kept for the way back beside z."""
        ...

    def low(self, x: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
        """drop(x) downᵀ [T, R]."""
        ...

    def down_gradient(self, g_low: torch.Tensor, z: torch.Tensor, x: torch.Tensor | None) -> torch.Tensor:
        """g_lowᵀ drop(x) [R, n] in fp32."""
        ...

    def input_gradient_(
        self, g_x: torch.Tensor, g_low: torch.Tensor, down: torch.Tensor, z: torch.Tensor
    ) -> torch.Tensor:
        """(g_x + drop(g_low down)) act'(z) [T, n]; g_x is overwritten."""
        ...


def thin_products(z: torch.Tensor, share: float, rank: int, *, gelu: bool) -> ThinProducts:
    """Draws what is dropped: `share` of the elements, where there is an adapter at all."""
    drops = dropout.draw(z, share if rank else 0.0)
    ops = ops_for(z)
    if isinstance(ops, GpuOps) and 0 < rank <= HIGHEST_RANK:
        seed, threshold = (drops.seed, drops.threshold) if isinstance(drops, HashDrops) else (0, 0)
        return OnePass(ops, seed, threshold, gelu)
    return Plain(ops, drops, gelu)


@dataclass(frozen=True)
class Plain:
    ops: PlainOps
    drops: Drops
    gelu: bool
    keeps_input: bool = True

    def low(self, x: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
        return self.drops.dropped(x) @ down.T

    def down_gradient(self, g_low: torch.Tensor, _z: torch.Tensor, x: torch.Tensor | None) -> torch.Tensor:
        assert x is not None
        return (g_low.T @ self.drops.dropped(x)).float()

    def input_gradient_(
        self, g_x: torch.Tensor, g_low: torch.Tensor, down: torch.Tensor, z: torch.Tensor
    ) -> torch.Tensor:
        g_x = self.drops.add_dropped_(g_x, g_low @ down) if len(down) else g_x
        return self.ops.gelu_backward(g_x, z) if self.gelu else g_x


@dataclass(frozen=True)
class OnePass:
    ops: GpuOps
    seed: int
    threshold: int
    gelu: bool
    keeps_input: bool = False

    def low(self, x: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
        return self.ops.low_product(x, down, self.seed, self.threshold)

    def down_gradient(self, g_low: torch.Tensor, z: torch.Tensor, _x: torch.Tensor | None) -> torch.Tensor:
        return self.ops.low_gradient(g_low, z, self.seed, self.threshold, gelu=self.gelu)

    def input_gradient_(
        self, g_x: torch.Tensor, g_low: torch.Tensor, down: torch.Tensor, z: torch.Tensor
    ) -> torch.Tensor:
        return self.ops.add_low_back_(g_x, g_low, down, z, self.seed, self.threshold, gelu=self.gelu)
