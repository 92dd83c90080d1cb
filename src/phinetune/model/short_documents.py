"""Causal attention within each document of a row by Triton kernels: for short documents on a recent NVIDIA GPU.

    q k v [T, heads d] ─► a document and a head at a time, all its scores in one tile, q and k turned ─► [T, heads d]

FlashAttention-2 goes through documents in tiles of 64 by 128 tokens; of a question and its answer, most of a tile is
padding. How long documents are is read on the device alone: a captured graph serves other documents of as many tokens.
The plain reference is documents.py.
"""

from __future__ import annotations

from typing import Any

import torch

from phinetune.model.flash import flash_document_attention
from phinetune.model.ops import ops_for
from phinetune.model.ops.gpu import LONGEST_IN_A_TILE, GpuOps

LONGEST = LONGEST_IN_A_TILE
# What registers hold, by what the compiler spills: 128 tokens need the products of compute capability 9, which read
# shared memory, and heads of up to 96 numbers; elsewhere, and for wider heads, 64 tokens.
_LONGEST_ELSEWHERE = 64
_WIDEST_HEAD, _WIDEST_HEAD_ON_HOPPER = 96, 128


def has_short(device: torch.device, dtype: torch.dtype, longest: int) -> bool:
    """Whether there are kernels for documents of up to `longest` tokens in `dtype` on `device`."""
    return longest <= LONGEST and isinstance(ops_for(torch.empty(0, dtype=dtype, device=device)), GpuOps)


def _fits(device: torch.device, longest: int, head_dim: int) -> bool:
    hopper = torch.cuda.get_device_capability(device)[0] == 9
    if longest > _LONGEST_ELSEWHERE:
        return hopper and head_dim <= _WIDEST_HEAD
    return head_dim <= (_WIDEST_HEAD_ON_HOPPER if hopper else _WIDEST_HEAD)


class ShortAttention(torch.autograd.Function):
    """(q [T, H d], k and v [T, Kv d], cos and sin [T, d'/2] in fp32, bounds [documents + 1], longest, d) -> [T, H d].

    The first d' of every head's d numbers are rotated by their position first (Su et al., 2021, "RoFormer"), halves
    paired as in transformers. Gradients for q, k and v. `longest` is no less than any document's length; a document
    may be empty. Tokens behind the last document get no answers and no gradients, but what memory held.
    Saved for backward: the inputs, the answers, and a sum a query and head.
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
        head_dim: int,
    ) -> torch.Tensor:
        ops = ops_for(q)
        assert isinstance(ops, GpuOps)
        answers, log_sums = ops.attend(q, k, v, cos, sin, bounds, longest, head_dim)
        ctx.save_for_backward(q, k, v, cos, sin, bounds, answers, log_sums)
        ctx.ops, ctx.longest, ctx.head_dim = ops, longest, head_dim
        return answers

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        *inputs, answers, log_sums = ctx.saved_tensors
        g = ctx.ops.attend_backward(gradients[0], *inputs, ctx.longest, ctx.head_dim, answers, log_sums)
        return *g, None, None, None, None, None


def short_document_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    bounds: torch.Tensor,
    longest: int,
    head_dim: int,
) -> torch.Tensor:
    """Rotation and attention of a row; see ShortAttention. What no tile of the GPU holds goes to flash.py."""
    if not _fits(q.device, longest, head_dim):
        return flash_document_attention(q, k, v, cos, sin, bounds, longest, head_dim)
    return ShortAttention.apply(q, k, v, cos, sin, bounds, longest, head_dim)  # type: ignore[no-any-return,no-untyped-call]
