"""Whether two forms of a tuned model say the same: the loss of each on texts that the model itself writes.

    probe questions ─► the adapter's own greedy answers ─► their loss by the adapter, and by the exported form

A model's own answers are what it is surest of, so a damaged weight, a swapped head or a wrong packing shows at once,
and no text of the person's sheet has to be kept for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from phinetune.model.rows import fast_row_loss, plain_row_loss
from phinetune.settings import GenerateSettings
from phinetune.tokens.batch import validation_batches
from phinetune.tokens.encode import Encoder, Example
from phinetune.use import generate

QUESTIONS = (
    "What is this about?",
    "Who are you?",
    "When does it open?",
    "How much does it cost?",
    "Where can I find more?",
    "Why is the sky blue?",
    "What is machine learning?",
    "Can you help me?",
)
_ANSWER = GenerateSettings(temperature=0, max_new_tokens=32)
_ROW = 2048  # tokens


@dataclass(frozen=True)
class _Written:
    question: str
    answer: str
    row: int


def probes(model: Any, encoder: Encoder) -> list[Example]:
    """The model's greedy answers to a few general questions, as examples to measure other forms with."""
    answers = generate.answers(model, encoder, QUESTIONS, _ANSWER)
    pairs = zip(QUESTIONS, answers, strict=True)
    return encoder.examples([_Written(q, a or "-", row) for row, (q, a) in enumerate(pairs)])


@torch.inference_mode()
def mean_loss(model: Any, examples: Sequence[Example]) -> float:
    """Cross-entropy per answer token in nats."""
    rows = [row.to(next(model.parameters()).device) for row in validation_batches(examples, _ROW)]
    fast = fast_row_loss(model)
    with nullcontext(fast) if fast is not None else plain_row_loss(model) as row_loss:
        total = sum(float(row_loss(row.ids, row.positions, row.targets, row.predictors, row.lengths)) for row in rows)
    return total / sum(row.answer_tokens for row in rows)
