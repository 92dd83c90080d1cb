"""Normalisation and gating in few memory passes, each with its gradient written out. Plain references: transformers'
modules, which spend some ten passes each way.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import silu


class RmsNorm(torch.autograd.Function):
    """(x [T, n], weight [n], eps) -> x / rms(x) * weight (Zhang and Sennrich, 2019). The frozen weight gets no
    gradient. Computed in fp32, rounded to x's format before and after the weight, as transformers does.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        wide = x.float()
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        scale = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return torch.mul((wide * scale).to(x.dtype), weight)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        x, weight, scale = ctx.saved_tensors
        unit = x.float() * scale
        g = gradients[0].float() * weight
        along = torch.linalg.vecdot(g, unit).div_(x.shape[-1]).unsqueeze_(-1)
        return g.addcmul_(unit, along, value=-1).mul_(scale).to(x.dtype), None, None


class GatedSilu(torch.autograd.Function):
    """(gate [T, n], up [T, n]) -> silu(gate) * up (Shazeer, 2020, "GLU Variants Improve Transformer")."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        return silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = ctx.saved_tensors
        g_up = silu(gate).mul_(gradients[0])
        return torch.ops.aten.silu_backward(gradients[0] * up, gate), g_up


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return RmsNorm.apply(x, weight, eps)  # type: ignore[no-any-return,no-untyped-call]


def gated_silu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return GatedSilu.apply(gate, up)  # type: ignore[no-any-return,no-untyped-call]
