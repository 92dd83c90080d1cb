"""Whether a training step fits in memory, estimated before it is tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from phinetune.model.device import total_memory_bytes
from phinetune.model.row_plan import RowPlan, bytes_of_a_row, choose_rows

__all__ = ["RowPlan", "activation_bytes", "plan_rows"]


def activation_bytes(config: Any, tokens: int, dtype: torch.dtype) -> int:
    """Bytes kept for the backward pass of one row of `tokens`, its logits included (at worst one a token)."""
    return bytes_of_a_row(
        tokens,
        hidden=config.hidden_size,
        layers=config.num_hidden_layers,
        vocabulary=config.vocab_size,
        itemsize=dtype.itemsize,
    )


def plan_rows(model: Any, lengths: Sequence[int], batch_size: int, per_step: int, device: torch.device) -> RowPlan:
    """One row for the whole step where it is cheap, else rows of `batch_size`; recomputing where even they do not fit.

    `lengths` are the tokens of all pairs; the longest ones are assumed to meet in one row. The step is the same
    either way, and larger matrix products are faster: 112 tokens/s with four rows of four, 145 with one of sixteen
    (SmolLM2-135M, two AVX2 cores). The plan follows from the device's total memory, not from what is free at the
    moment, so that a resumed run has the same rows and with them the same rounding.
    """
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    room = total_memory_bytes(device) - weights
    return choose_rows(
        lengths, batch_size, per_step, room, lambda tokens: activation_bytes(model.config, tokens, model.dtype)
    )
