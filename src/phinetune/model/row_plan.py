"""How the pairs of a step go through the model, decided from sizes alone: no tensor is needed to know it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

# A transformer block keeps about 34 bytes per token and hidden unit in 16-bit numbers for its backward pass,
# attention scores aside (Korthikanti et al., 2022, "Reducing Activation Recomputation in Large Transformer Models",
# equation 2). The fused attention kernels do not keep the scores.
_BYTES_PER_UNIT_16_BIT = 34
_SHARE_TO_USE = 0.8  # the rest is for what the estimate does not see: allocator slack, the kernels' workspace
_SHARE_FOR_ONE_ROW = 0.2  # a whole step goes through the model as one row only where that is cheap


def bytes_of_a_row(tokens: int, *, hidden: int, layers: int, vocabulary: int, itemsize: int) -> int:
    """Bytes kept for the backward pass of one row of `tokens`, its logits included (at worst one a token).

    `itemsize` is the bytes of a number of the base model.
    """
    blocks = _BYTES_PER_UNIT_16_BIT * itemsize / 2 * tokens * hidden * layers
    logits = tokens * vocabulary * (itemsize + 2 * 4)  # the logits, their fp32 copy and its gradient
    return int(blocks + logits)


@dataclass(frozen=True)
class RowPlan:
    """How the pairs of a step go through the model: so many to a row, with activations kept or recomputed."""

    pairs_per_row: int
    recompute: bool


def choose_rows(
    lengths: Sequence[int], batch_size: int, per_step: int, room: int, needs: Callable[[int], int]
) -> RowPlan:
    """One row for the whole step where it is cheap, else rows of `batch_size`; recomputing where even they do not fit.

    `lengths` are the tokens of all pairs; the longest ones are assumed to meet in one row. `room`: bytes of the
    device beside the weights; `needs`: tokens of a row -> bytes.
    """
    longest = sorted(lengths, reverse=True)
    if needs(sum(longest[:per_step])) < _SHARE_FOR_ONE_ROW * room:
        return RowPlan(per_step, recompute=False)
    return RowPlan(batch_size, recompute=needs(sum(longest[:batch_size])) > _SHARE_TO_USE * room)
