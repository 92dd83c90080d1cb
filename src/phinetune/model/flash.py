"""Causal attention within each document of a row by the fused kernel of recent NVIDIA GPUs: one call for the whole row.

    q k v [T, heads, d] ─► rotate ─► varlen_attn, told where documents begin ─► [T, heads, d]

For bf16 and fp16 from compute capability 8.0 on; an older GPU, such as a T4, takes the blocks of documents.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch

from phinetune.model.documents import rotate

_WIDEST_HEAD = 256

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # a build of torch without it
    varlen_attn = None  # type: ignore[assignment]


def has_flash(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether the kernel takes heads of `head_dim` numbers in `dtype` on `device`: 8, 16, … 256, NVIDIA alone."""
    return (
        varlen_attn is not None
        and device.type == "cuda"
        and torch.version.hip is None
        and head_dim % 8 == 0
        and head_dim <= _WIDEST_HEAD
        and dtype in (torch.bfloat16, torch.float16)
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


class Rotate(torch.autograd.Function):
    """(heads [T, h, d], cos, sin [T, d'/2]) -> every head turned by its token's angles (Su et al., 2021)."""

    @staticmethod
    def forward(ctx: Any, heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        return rotate(heads, cos, sin)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return rotate(gradients[0], cos, -sin), None, None


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
    query = Rotate.apply(query, cos, sin)  # type: ignore[no-untyped-call]
    key = Rotate.apply(key, cos, sin)  # type: ignore[no-untyped-call]
    attended: Any = varlen_attn(
        query,
        key,
        value,
        bounds,
        bounds,
        longest,
        longest,
        scale=head_dim**-0.5,
        window_size=(-1, 0),  # causal
        enable_gqa=query.shape[1] != key.shape[1],
    )
    flat: torch.Tensor = attended.flatten(1)
    return flat
