"""Causal attention within each document of a row by the fused kernel of recent NVIDIA GPUs: one call for the whole row.

    q k v [T, heads, d] ─► rotate ─► FlashAttention-2, told where documents begin ─► [T, heads, d]

For bf16 and fp16 from compute capability 8.0 on; an older GPU, such as a T4, takes the blocks of documents.py. The
kernel is called below `torch.nn.attention.varlen`, whose arguments change from release to release.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch

from phinetune.model.ops import ops_for

_WIDEST_HEAD = 256


def has_flash(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether the kernel takes heads of `head_dim` numbers in `dtype` on `device`: 8, 16, … 256, NVIDIA alone."""
    return (
        device.type == "cuda"
        and torch.version.hip is None
        and hasattr(torch.ops.aten, "_flash_attention_forward")
        and head_dim % 8 == 0
        and head_dim <= _WIDEST_HEAD
        and dtype in (torch.bfloat16, torch.float16)
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


class FlashAttention(torch.autograd.Function):
    """(q [T, H, d], k and v [T, Kv, d], cos and sin [T, d'/2] in fp32, bounds [documents + 1], longest) -> [T, H, d].

    The first d' of every head's d numbers are rotated by their position first (Su et al., 2021, "RoFormer"). Gradients
    for q, k and v (Dao, 2023, "FlashAttention-2"). Saved for backward: the kernel's inputs, its answers, and a sum a
    query and head.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        bounds: torch.Tensor,
        longest: int,
    ) -> torch.Tensor:
        ops = ops_for(q)
        query, key = ops.rotate(q, cos, sin), ops.rotate(k, cos, sin)
        ctx.sizes, ctx.ops = (bounds, bounds, longest, longest, 0.0, True), ops  # no dropout, causal
        answers, log_sums, state, unused, _ = torch.ops.aten._flash_attention_forward(
            query, key, v, *ctx.sizes, False, scale=q.shape[-1] ** -0.5
        )
        ctx.save_for_backward(query, key, v, cos, sin, answers, log_sums, state, unused)
        return answers  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        query, key, v, cos, sin, answers, log_sums, state, unused = ctx.saved_tensors
        g_query, g_key, g_v = torch.ops.aten._flash_attention_backward(
            gradients[0].contiguous(), query, key, v, answers, log_sums, *ctx.sizes, state, unused,
            scale=query.shape[-1] ** -0.5,
        )  # fmt: skip
        g_q, g_k = (ctx.ops.rotate(g, cos, sin, back=True) for g in (g_query, g_key))
        return g_q, g_k, g_v, None, None, None, None


def document_bounds(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    """Where documents begin, and where the last one ends: int32 [documents + 1]."""
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)


def flash_document_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    bounds: torch.Tensor,
    longest: int,
    head_dim: int,
) -> torch.Tensor:
    """q [T, H d], k and v [T, Kv d], cos and sin [T, d'/2] in fp32 -> [T, H d]."""
    query, key, value = (part.view(part.shape[0], -1, head_dim) for part in (q, k, v))
    attended: torch.Tensor = FlashAttention.apply(query, key, value, cos, sin, bounds, longest)  # type: ignore[no-untyped-call]
    return attended.flatten(1)
