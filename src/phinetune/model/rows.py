"""The two ways of a padding-free row through the model.

ids, positions, lengths ─► layers.py, attend.py ─► LinearCrossEntropy                    Phi and the Llama family
                        └► transformers' forward, confined to documents ─► cross_entropy    everything else
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Protocol

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from phinetune.model import layers
from phinetune.model.attend import attend_within_documents
from phinetune.model.attention import confined_to_documents
from phinetune.model.fused import fused_adapters
from phinetune.model.loss import answer_loss, linear_cross_entropy


class RowLoss(Protocol):
    def __call__(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        targets: torch.Tensor,
        predictors: torch.Tensor,
        lengths: tuple[int, ...],
    ) -> torch.Tensor:
        """Sum of -log p(target) over the answer tokens of a row, in nats and fp32.

        ids, positions [1, T]; targets, predictors [A].
        """
        ...


def fast_row_loss(adapted: PeftModel | PreTrainedModel) -> RowLoss | None:
    """By the layers written out here; None where they do not cover the model, adapter and all."""
    model = _base(adapted)
    if not layers.covers(model):
        return None

    def loss(
        ids: torch.Tensor,
        positions: torch.Tensor,
        targets: torch.Tensor,
        predictors: torch.Tensor,
        lengths: tuple[int, ...],
    ) -> torch.Tensor:
        hidden = layers.hidden_states(model, ids[0], attend_within_documents(model, positions[0], lengths), predictors)
        return linear_cross_entropy(hidden, model.lm_head.weight, model.lm_head.bias, targets)

    return loss


def _base(model: PeftModel | PreTrainedModel) -> PreTrainedModel:
    base: PreTrainedModel = model.get_base_model() if isinstance(model, PeftModel) else model
    return base


@contextmanager
def plain_row_loss(model: PeftModel | PreTrainedModel, *, fused: bool = False) -> Iterator[RowLoss]:
    """By transformers' own forward and PEFT's own adapters, or fused ones: the reference, and the way for every
    model that the layers here do not cover.

    Raises ModelError for a model that does not take an attention function.
    """
    adapters = fused_adapters(model) if fused else nullcontext()
    with confined_to_documents(_base(model)), adapters:

        def loss(
            ids: torch.Tensor,
            positions: torch.Tensor,
            targets: torch.Tensor,
            predictors: torch.Tensor,
            lengths: tuple[int, ...],
        ) -> torch.Tensor:
            return answer_loss(model, ids, positions, targets, predictors, lengths)

        yield loss
