"""Causal attention within each document of a row by one fused GPU kernel for the whole row.

    q k v [T, heads d] ─► rotate ─► a kernel that is told where documents begin ─► [T, heads d]

flash.py and short_documents.py have the kernels; the plain reference is documents.py.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch

from phinetune.model.ops import ops_for


class Kernel(Protocol):
    """Attention of rotated queries and keys within the documents of one row: q [T, H, d], k and v [T, Kv, d], and the
    gradient of the answers, all contiguous."""

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The answers [T, H, d], and what else is kept for the way back."""
        ...

    def backward(
        self, g: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *kept: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """From the gradient of the answers to those of q, k and v; `kept` is all that `forward` gave."""
        ...


class FusedAttention(torch.autograd.Function):
    """(q [T, H, d], k and v [T, Kv, d], cos and sin [T, d'/2] in fp32, kernel) -> [T, H, d].

    The first d' of every head's d numbers are rotated by their position first (Su et al., 2021, "RoFormer"), halves
    paired as in transformers. Gradients for q, k and v. Saved for backward: the rotated q and k, v, and what the
    kernel keeps: its answers, and a sum a query and head.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        kernel: Kernel,
    ) -> torch.Tensor:
        ctx.ops, ctx.kernel = ops_for(q), kernel
        query, key = ctx.ops.rotate(q, cos, sin), ctx.ops.rotate(k, cos, sin)
        v = v.contiguous()
        kept = kernel.forward(query, key, v)
        ctx.save_for_backward(cos, sin, query, key, v, *kept)
        return kept[0]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        cos, sin, *saved = ctx.saved_tensors
        g_query, g_key, g_v = ctx.kernel.backward(gradients[0].contiguous(), *saved)
        g_q, g_k = (ctx.ops.rotate(g, cos, sin, back=True) for g in (g_query, g_key))
        return g_q, g_k, g_v, None, None, None


def fused_document_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    kernel: Kernel,
    head_dim: int,
) -> torch.Tensor:
    """q [T, H d], k and v [T, Kv d], cos and sin [T, d'/2] in fp32 -> [T, H d]."""
    query, key, value = (part.view(part.shape[0], -1, head_dim) for part in (q, k, v))
    attended: torch.Tensor = FusedAttention.apply(query, key, value, cos, sin, kernel)  # type: ignore[no-untyped-call]
    return attended.flatten(1)
