"""Rows of mostly short documents by Triton kernels on a recent NVIDIA GPU: one document and head a program.

FlashAttention-2 goes through documents in tiles of 64 by 128 tokens; of a question and its answer most of a tile is
padding. How long documents are is read on the device alone: a recorded graph serves other documents of as many tokens.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch

from phinetune.model.documents import document_attention_by_blocks, lay_out_documents
from phinetune.model.flash import document_bounds
from phinetune.model.ops import ops_for
from phinetune.model.ops.gpu import WIDEST_IN_A_TILE, GpuOps
from phinetune.model.out_of_memory import is_out_of_memory

_TRIED = (2, 33, 64, 17, 65, 1, 200)  # tokens of documents, in one tile and in several, at its border and beside it
_APART = 2e-2  # relative; the kernels were 0.003 from fp32 in bf16, a wrong one 0.08 to 4


@dataclass(frozen=True)
class Short:
    """The `Kernel` of a row with documents at `bounds` [documents + 1], none longer than `longest` tokens. A document
    may be empty; behind the last one nothing is written."""

    ops: GpuOps
    bounds: torch.Tensor
    longest: int

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.ops.attend(q, k, v, self.bounds, self.longest)

    def backward(
        self, g: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *kept: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.ops.attend_backward(g, q, k, v, self.bounds, self.longest, *kept)


def short_documents(
    bounds: torch.Tensor, longest: int, dtype: torch.dtype, heads: tuple[int, int, int]
) -> Short | None:
    """The kernel for documents of up to `longest` tokens in `dtype` on the device of `bounds`; `heads` are (query
    heads, key heads, numbers of a head). None where there is none, or where it was seen to give other numbers.
    """
    if heads[2] > WIDEST_IN_A_TILE or heads[0] % heads[1]:
        return None
    ops = ops_for(torch.empty(0, dtype=dtype, device=bounds.device))
    return Short(ops, bounds, longest) if isinstance(ops, GpuOps) and _are_right(ops, dtype, heads) else None


@functools.cache
def _are_right(ops: GpuOps, dtype: torch.dtype, heads: tuple[int, int, int]) -> bool:
    """Whether the kernels, once compiled for this device, give what documents.py gives, forth and back."""
    query_heads, kv_heads, width = heads
    device, generator = ops.salt.device, torch.Generator().manual_seed(0)
    sizes = [(sum(_TRIED), count, width) for count in (query_heads, kv_heads, kv_heads, query_heads)]
    kernel = Short(ops, document_bounds(_TRIED, device), max(_TRIED))
    with torch.inference_mode(False):
        q, k, v, g = (torch.randn(size, generator=generator).to(device, dtype) for size in sizes)
        exact = _by_blocks(q, k, v, g, heads)
        try:
            kept = kernel.forward(q, k, v)
            found = [kept[0], *kernel.backward(g, q, k, v, *kept)]
            return all(_is_near(ours, plain) for ours, plain in zip(found, exact, strict=True))
        except Exception as error:  # whatever Triton, its compiler or the driver raise means that this way is closed
            if is_out_of_memory(error):
                raise
            return False


def _by_blocks(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, g: torch.Tensor, heads: tuple[int, int, int]
) -> list[torch.Tensor]:
    """In fp32, nothing rotated."""
    q, k, v = (part.float().flatten(1).requires_grad_() for part in (q, k, v))
    still = q.new_ones(len(q), 0, dtype=torch.float32)
    layout = lay_out_documents(_TRIED, *heads, q.device)
    with torch.enable_grad():
        answers = document_attention_by_blocks(q, k, v, still, still, layout, heads[2] ** -0.5)
        gradients = torch.autograd.grad(answers, (q, k, v), g.float().flatten(1))
    return [answers.detach(), *gradients]


def _is_near(ours: torch.Tensor, plain: torch.Tensor) -> bool:
    return float((ours.float().flatten(1) - plain).norm()) <= _APART * float(plain.norm())
