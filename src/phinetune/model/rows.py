"""The two ways of a padding-free row through the model.

Row ─► layers.py, attend.py ─► LinearCrossEntropy                    Phi and the Llama family
      └► transformers' forward, confined to documents ─► LinearCrossEntropy    others whose logits are a product
                                                     └► cross_entropy         everything else
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Protocol

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy, linear
from transformers import PreTrainedModel

from phinetune.model import layers
from phinetune.model.attend import Documents, attend_within_bounds, attend_within_documents
from phinetune.model.attention import confined_to_documents
from phinetune.model.fused import fused_adapters
from phinetune.model.gguf_names import ARCHITECTURES
from phinetune.model.loss import answer_logits, answer_loss, linear_cross_entropy, loss_in_parts, loss_through_head
from phinetune.model.row import Row

_LOGITS_AT_ONCE = 256  # places


class RowLoss(Protocol):
    def __call__(self, row: Row) -> torch.Tensor:
        """Sum of -log p(target) over the answer tokens of the row, in nats and fp32."""
        ...


class FastRowLoss:
    """By the layers written out here."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model

    def __call__(self, row: Row) -> torch.Tensor:
        attend = attend_within_documents(self._model, row.positions[0], row.lengths)
        return self._loss(row.ids[0], attend, row.targets, row.predictors)

    def by_documents(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        targets: torch.Tensor,
        predictors: torch.Tensor,
        documents: Documents,
    ) -> torch.Tensor:
        """The same for a row whose documents the GPU alone knows: ids, positions [T]; targets, predictors [A]."""
        attend = attend_within_bounds(self._model, positions, documents)
        return self._loss(ids, attend, targets, predictors)

    def likeliest(self, row: Row) -> torch.Tensor:
        """The word [A] that the model thinks likeliest behind each of the row's predictors [A]; no gradient."""
        return torch.cat([logits.argmax(-1) for logits in self._logits(row)])

    def token_losses(self, row: Row) -> torch.Tensor:
        """-log p [A] of each of the row's targets, in nats and fp32; no gradient."""
        parts = zip(self._logits(row), torch.split(row.targets, _LOGITS_AT_ONCE), strict=True)
        return torch.cat([cross_entropy(logits.float(), targets, reduction="none") for logits, targets in parts])

    def _logits(self, row: Row) -> Iterator[torch.Tensor]:
        """The logits [a few, V] behind the row's predictors, some places at a time."""
        model = self._model
        attend = attend_within_documents(model, row.positions[0], row.lengths)
        hidden = layers.hidden_states(model, row.ids[0], attend, row.predictors)
        for part in torch.split(hidden, _LOGITS_AT_ONCE):
            yield linear(part, model.lm_head.weight, model.lm_head.bias)

    def _loss(
        self, ids: torch.Tensor, attend: layers.Attend, targets: torch.Tensor, predictors: torch.Tensor
    ) -> torch.Tensor:
        model = self._model
        hidden = layers.hidden_states(model, ids, attend, predictors)
        return linear_cross_entropy(hidden, model.lm_head.weight, model.lm_head.bias, targets)


def fast_row_loss(adapted: PeftModel | PreTrainedModel) -> FastRowLoss | None:
    """The fast way; None where it does not cover the model, adapter and all."""
    model = _base(adapted)
    return FastRowLoss(model) if layers.covers(model) else None


def _base(model: PeftModel | PreTrainedModel) -> PreTrainedModel:
    base: PreTrainedModel = model.get_base_model() if isinstance(model, PeftModel) else model
    return base


@contextmanager
def row_loss(model: PeftModel | PreTrainedModel) -> Iterator[RowLoss]:
    """The fast way where it covers the model, else the plain one; no gradient.

    Of a model whose weights are read when they are needed (streamed.py), the logits are made some places at a time
    where they are a plain product: for 2000 answer tokens and the 51200 words of Phi-2 all of them take 0.8 GB.
    """
    base = _base(model)
    if (fast := fast_row_loss(model)) is not None:
        yield fast
    elif base.config.model_type in ARCHITECTURES and base.lm_head.weight.is_meta:
        with confined_to_documents(base):
            yield partial(loss_in_parts, base)
    else:
        with plain_row_loss(model) as plain:
            yield plain


@contextmanager
def likeliest_words(model: PeftModel | PreTrainedModel) -> Iterator[Callable[[Row], torch.Tensor]]:
    """Row -> the word [A] that the model thinks likeliest behind each of its predictors [A], the fast way or the plain.

    Raises ModelError for a model that does not take an attention function.
    """
    if (fast := fast_row_loss(model)) is not None:
        yield fast.likeliest
    else:
        with confined_to_documents(_base(model)):
            yield lambda row: answer_logits(model, row).argmax(-1)


@contextmanager
def plain_row_loss(
    model: PeftModel | PreTrainedModel, *, fused: bool = False, through_head: bool = False
) -> Iterator[RowLoss]:
    """By transformers' own forward and PEFT's own adapters: the reference. With fused adapters, and where the head is
    last (loss.py) through it, the way for every model that the layers here do not cover.

    Raises ModelError for a model that does not take an attention function.
    """
    adapters = fused_adapters(model) if fused else nullcontext()
    with confined_to_documents(_base(model)), adapters:
        yield partial(loss_through_head, _base(model)) if through_head else partial(answer_loss, model)
