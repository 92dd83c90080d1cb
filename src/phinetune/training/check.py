"""Before the first step: which way rows go through the model, proven on two pairs of the sheet."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from peft import PeftModel

from phinetune.errors import TrainingError
from phinetune.events import Warned
from phinetune.model.attention import cannot_confine
from phinetune.model.rows import RowLoss, fast_row_loss, plain_row_loss
from phinetune.tokens.batch import lay_out
from phinetune.tokens.encode import Example
from phinetune.training.step import validation_loss

# How far two ways of computing one loss may lie apart, relative.
_ROUNDING = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 3e-2}


@contextmanager
def proven_row_loss(model: PeftModel, examples: Sequence[Example]) -> Iterator[tuple[RowLoss, Warned | None]]:
    """The fast way where the model has one and it agrees with transformers' forward here, else the plain one.

    A warning goes with the plain way where the fast one should have worked. Raises TrainingError when the base model
    gives no usable numbers, and ModelError when a pair would see its neighbours in a row.
    """
    shortest = min(examples, key=lambda example: len(example.ids))
    longest = max(examples, key=lambda example: len(example.ids))
    pair = [shortest, longest]
    warning = None
    with plain_row_loss(model) as plain:
        expected = _plain_loss(model, plain, pair)
    if (fast := fast_row_loss(model)) is not None:
        if _close(model, _loss_of_row(model, fast, pair), expected):
            yield fast, None
            return
        warning = Warned(
            "slow_path",
            "The fast way of computing this model gives other numbers than the plain one on this device, so the "
            "plain one is taken: the result is the same, but training is slower.",
        )
    with plain_row_loss(model, fused=True) as plain:
        if not _close(model, _loss_of_row(model, plain, pair), expected):
            raise cannot_confine(model.get_base_model())
        yield plain, warning


def _plain_loss(model: PeftModel, plain: RowLoss, examples: Sequence[Example]) -> float:
    """The summed loss of the examples, each in a row of its own."""
    loss = sum(_loss_of_row(model, plain, [example]) for example in examples)
    if not math.isfinite(loss):
        raise TrainingError(
            "The base model gives no usable numbers in this number format, before any training.",
            "Try --dtype fp32. If that does not help either, the model file is damaged: get it again.",
        )
    return loss


def _loss_of_row(model: PeftModel, row_loss: RowLoss, examples: Sequence[Example]) -> float:
    row = lay_out(examples)
    return validation_loss(model, row_loss, [row]) * row.answer_tokens


def _close(model: PeftModel, loss: float, expected: float) -> bool:
    return abs(loss - expected) <= _ROUNDING[model.get_base_model().dtype] * abs(expected)
