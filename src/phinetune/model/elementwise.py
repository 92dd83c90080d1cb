"""Norms and gates in few memory passes, each with its gradient written out. Plain references:
transformers' modules, which spend some ten passes each way.
"""

from __future__ import annotations

from typing import Any

import torch

from phinetune.model.ops import ops_for


class RmsNorm(torch.autograd.Function):
    """(x [T, n], weight [n], eps) -> x / rms(x) * weight (Zhang and Sennrich, 2019). The frozen weight gets no
    gradient. Computed in fp32, rounded to x's format before and after the weight, as transformers does.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        y, scale = ops_for(x).rms_norm(x, weight, eps)
        ctx.save_for_backward(x, weight, scale)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        x, weight, scale = ctx.saved_tensors
        return ops_for(x).rms_norm_backward(gradients[0], x, weight, scale), None, None


class GatedSilu(torch.autograd.Function):
    """(gate [T, n], up [T, n]) -> silu(gate) * up (Shazeer, 2020, "GLU Variants Improve Transformer")."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        return ops_for(gate).gated_silu(gate, up)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = ctx.saved_tensors
        return ops_for(gate).gated_silu_backward(gradients[0], gate, up)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return RmsNorm.apply(x, weight, eps)  # type: ignore[no-any-return,no-untyped-call]


def gated_silu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return GatedSilu.apply(gate, up)  # type: ignore[no-any-return,no-untyped-call]
