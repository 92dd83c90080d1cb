"""Documents of any length by the fused kernel of recent NVIDIA GPUs (Dao, 2023, "FlashAttention-2").

For bf16 and fp16 from compute capability 8.0 on; an older GPU, such as a T4, takes the blocks of documents.py. The
kernel is called below `torch.nn.attention.varlen`, whose arguments change from release to release.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch

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


def document_bounds(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    """Where documents begin, and where the last one ends: int32 [documents + 1]."""
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)


@dataclass(frozen=True)
class Flash:
    """The `Kernel` of a row with documents at `bounds` [documents + 1], none longer than `longest` tokens."""

    bounds: torch.Tensor
    longest: int

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, ...]:
        answers, log_sums, state, unused, _ = torch.ops.aten._flash_attention_forward(
            q, k, v, *self._sizes, False, scale=q.shape[-1] ** -0.5
        )
        return answers, log_sums, state, unused

    def backward(
        self, g: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *kept: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        answers, log_sums, state, unused = kept
        gradients: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = torch.ops.aten._flash_attention_backward(
            g, q, k, v, answers, log_sums, *self._sizes, state, unused, scale=q.shape[-1] ** -0.5
        )
        return gradients

    @property
    def _sizes(self) -> tuple[Any, ...]:
        return self.bounds, self.bounds, self.longest, self.longest, 0.0, True  # no dropout, causal
