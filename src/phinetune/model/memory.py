"""Whether a training step fits in memory, estimated before it is tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from phinetune.model.device import total_memory_bytes

# A transformer block keeps about 34 bytes per token and hidden unit in 16-bit numbers for its backward pass,
# attention scores aside (Korthikanti et al., 2022, "Reducing Activation Recomputation in Large Transformer Models",
# equation 2). The fused attention kernels do not keep the scores.
_BYTES_PER_UNIT_16_BIT = 34
_SHARE_TO_USE = 0.8  # the rest is for what the estimate does not see: allocator slack, the kernels' workspace
_SHARE_FOR_ONE_ROW = 0.2  # a whole step goes through the model as one row only where that is cheap


def activation_bytes(config: Any, tokens: int, dtype: torch.dtype) -> int:
    """Bytes kept for the backward pass of one row of `tokens`, its logits included (at worst one a token)."""
    width = dtype.itemsize / 2
    blocks = _BYTES_PER_UNIT_16_BIT * width * tokens * config.hidden_size * config.num_hidden_layers
    logits = tokens * config.vocab_size * (dtype.itemsize + 2 * 4)  # the logits, their fp32 copy and its gradient
    return int(blocks + logits)


@dataclass(frozen=True)
class RowPlan:
    """How the pairs of a step go through the model: so many to a row, with activations kept or recomputed."""

    pairs_per_row: int
    recompute: bool


def plan_rows(model: Any, lengths: Sequence[int], batch_size: int, per_step: int, device: torch.device) -> RowPlan:
    """One row for the whole step where it is cheap, else rows of `batch_size`; recomputing where even they do not fit.

    `lengths` are the tokens of all pairs; the longest ones are assumed to meet in one row. The step is the same
    either way, and larger matrix products are faster: 112 tokens/s with four rows of four, 145 with one of sixteen
    (SmolLM2-135M, two AVX2 cores). The plan follows from the device's total memory, not from what is free at the
    moment, so that a resumed run has the same rows and with them the same rounding.
    """
    longest = sorted(lengths, reverse=True)
    total = total_memory_bytes(device)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())

    def needs(pairs: int) -> int:
        return activation_bytes(model.config, sum(longest[:pairs]), model.dtype)

    if needs(per_step) < _SHARE_FOR_ONE_ROW * (total - weights):
        return RowPlan(per_step, recompute=False)
    return RowPlan(batch_size, recompute=needs(batch_size) > _SHARE_TO_USE * (total - weights))
