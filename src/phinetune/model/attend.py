"""Attention within the documents of a row, by the fastest way that is at hand.

short_documents.py  Triton                  rows of mostly short ones in 16-bit numbers on NVIDIA GPUs from 8.0 on
flash.py            FlashAttention-2        all other rows there
bands.py            attention.c             bf16 on a CPU, where there is GCC
documents.py        a few batched products  everything else, and the reference of the others
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from phinetune.model import layers
from phinetune.model.bands import document_attention_by_bands, has_bands
from phinetune.model.documents import document_attention_by_blocks, lay_out_documents
from phinetune.model.flash import Flash, document_bounds, has_flash
from phinetune.model.footprint import Attention
from phinetune.model.fused_attention import fused_document_attention
from phinetune.model.graph_sizes import mostly_short
from phinetune.model.short_documents import short_documents


def attention_kind(device: torch.device, dtype: torch.dtype, head_dim: int) -> Attention:
    if has_flash(device, dtype, head_dim):
        return "flash"
    return "bands" if has_bands(device, dtype) else "blocks"


@dataclass(frozen=True)
class Documents:
    """Where the documents of a row begin, and where the last one ends, int32 [documents + 1] on the row's device.

    `longest` is the tokens of the longest one, or more; `are_short` that most tokens are in short ones.
    """

    bounds: torch.Tensor
    longest: int
    are_short: bool


def attend_within_documents(model: PreTrainedModel, positions: torch.Tensor, lengths: Sequence[int]) -> layers.Attend:
    """For all layers of a row whose tokens have these positions [T], of documents of these lengths."""
    heads, kv_heads, head_dim = layers.heads(model)
    device = positions.device
    kind = attention_kind(device, model.dtype, head_dim)
    if kind == "flash":
        documents = Documents(document_bounds(lengths, device), max(lengths), mostly_short(lengths))
        return attend_within_bounds(model, positions, documents)
    cos, sin = layers.rotation(model, positions)
    if kind == "bands":

        def by_bands(_index: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, /) -> torch.Tensor:
            return document_attention_by_bands(q, k, v, cos, sin, lengths, head_dim)

        return by_bands
    layout = lay_out_documents(lengths, heads, kv_heads, head_dim, device)

    def by_blocks(_index: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, /) -> torch.Tensor:
        return document_attention_by_blocks(q, k, v, cos, sin, layout, head_dim**-0.5)

    return by_blocks


def attend_within_bounds(model: PreTrainedModel, positions: torch.Tensor, documents: Documents) -> layers.Attend:
    """The same where attention is "flash": nothing but the row's size is known to the processor."""
    cos, sin = layers.rotation(model, positions)
    heads, bounds, longest = layers.heads(model), documents.bounds, documents.longest
    short = short_documents(bounds, longest, model.dtype, heads) if documents.are_short else None
    kernel = short or Flash(bounds, longest)

    def fused(_index: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, /) -> torch.Tensor:
        return fused_document_attention(q, k, v, cos, sin, kernel, heads[2])

    return fused
