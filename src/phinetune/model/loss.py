"""Answer-only cross-entropy of a padding-free row."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy


def answer_loss(
    model: torch.nn.Module,
    ids: torch.Tensor,
    positions: torch.Tensor,
    targets: torch.Tensor,
    predictors: torch.Tensor,
    lengths: tuple[int, ...],
) -> tuple[torch.Tensor, int]:
    """Sum of -log p(target) over the answer tokens of a row, in nats and fp32, and their count.

    ids, positions [1, T]; targets, predictors [A]. Logits are made for the A predicting places alone: a row of
    short answers spends nothing on the vocabulary of its questions. The sum, not the mean, so that steps made of
    several rows weigh every answer token alike.
    """
    output: Any = model(
        input_ids=ids,
        position_ids=positions,
        logits_to_keep=predictors,
        document_lengths=lengths,
        use_cache=False,
    )
    return cross_entropy(output.logits[0].float(), targets, reduction="sum"), targets.shape[0]
