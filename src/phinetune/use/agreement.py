"""Whether two forms of a tuned model say the same, and whether that is as close as the form promises.

    held-out pairs, or general text ─► their loss by the adapter, and by the other form
    probe questions ─► the adapter's own greedy answers, and the other form's     (verify)

    merged              the adapter's loss up to rounding: 0.001 nats per answer token in fp32, 0.002 in fp16,
                        0.005 in bf16
    f32, f16, bf16      that, and 95 % of the greedy answers letter by letter
    q8_0                the adapter's loss within 1 %, or 0.005 where that is more
    other packings      nothing: they lose what they lose

Where the loss itself can be computed in bf16 alone, 0.01 more. Rounding moves the loss of few tokens more: of less than
500, the bounds that are not a share grow as the square root of what is missing.

A damaged weight, a swapped head or a wrong packing shows in the loss of any text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import cycle
from typing import Any

import torch

from phinetune.model.device import device_of, dtype_name
from phinetune.model.rows import row_loss
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

# How far the loss of another form may lie from the adapter's, in nats per answer token; beyond it the file is wrong,
# not rounded. f32, f16 and q8_0 are packings, fp32 and fp16 the number formats of a merged folder.
# Measured with SmolLM2-135M and an adapter, eight pairs at a time: f16 up to 0.0004, bf16 0.0008, q8_0 0.3 %.
_ROUNDING = {"fp32": 1e-3, "f32": 1e-3, "fp16": 2e-3, "f16": 2e-3, "bf16": 5e-3, "q8_0": 5e-3}
# Of so many answer tokens or more; of fewer, the mean of what rounding does to each of them varies more. Rounding
# SmolLM2-135M to bf16 moved the loss by 0.012 on 57 tokens and by 0.002 on 599.
_TOKENS = 500
_SHARE = {"q8_0": 0.01}  # of the adapter's loss, where that is more
_MEASURING = {"fp32": 0.0, "bf16": 0.01}  # what computing both losses in that adds
_SAME_ANSWERS = ("f32", "f16", "bf16")
_ONE_IN = 20  # answers may differ: where two words are equally likely, rounding decides between them


@dataclass(frozen=True)
class _Written:
    question: str
    answer: str
    row: int


@dataclass(frozen=True)
class Answers:
    """`same` of `asked` greedy answers are the adapter's, letter by letter."""

    same: int
    asked: int


@dataclass(frozen=True)
class Verdict:
    """Whether a form keeps what is promised of its kind, and in words why. None: nothing is promised, or too few
    questions were asked to tell.
    """

    kept: bool | None
    reason: str


def judge(
    kind: str,
    loss: float | None,
    adapter_loss: float,
    measured_in: torch.dtype,
    tokens: int,
    answers: Answers | None = None,
) -> Verdict:
    """Whether a form of the packing, or number format of a merged folder, `kind` is as close as promised.

    `loss` is None where it was not measured; `measured_in` is the number format that the losses, means over `tokens`,
    were computed in: it rounds too. `answers` are None for a form of which only the loss is promised, such as a
    merged folder.
    """
    kept = []
    if kind in _ROUNDING and loss is not None:
        rounding = _ROUNDING[kind] * math.sqrt(max(1.0, _TOKENS / tokens))
        allowed = max(rounding, _SHARE.get(kind, 0.0) * adapter_loss) + _MEASURING[dtype_name(measured_in)]
        if not abs(loss - adapter_loss) <= allowed:  # nor when it is not a number
            return Verdict(False, f"its loss is {loss - adapter_loss:+.3f} off, where {allowed:.3f} is rounding")
        kept.append(f"its loss is within {allowed:.3f}")
    if kind in _SAME_ANSWERS and answers is not None:
        differ, may = answers.asked - answers.same, answers.asked // _ONE_IN
        if differ > may:
            if differ == 1:
                return Verdict(None, f"one answer of {answers.asked} differs: {_ONE_IN} questions would tell")
            return Verdict(False, f"{differ} of {answers.asked} answers differ, where {may or 'none'} may")
        kept.append(f"{answers.same} of {answers.asked} answers are the same")
    if not kept:
        return Verdict(None, f"of {kind} only the loss is promised" if kind in _ROUNDING else "nothing is promised")
    return Verdict(True, " and ".join(kept))


def probes(model: Any, encoder: Encoder) -> list[Example]:
    """The model's greedy answers to a few general questions, as examples to measure other forms with."""
    answers = generate.answers(model, encoder, QUESTIONS, _ANSWER)
    pairs = zip(QUESTIONS, answers, strict=True)
    return encoder.examples([_Written(q, a or "-", row) for row, (q, a) in enumerate(pairs)])


def general_examples(encoder: Encoder) -> list[Example]:
    """Paragraphs of general knowledge as answers to general questions: to measure forms with where there are no pairs.

    One pass over the model, where `probes` takes one for each token that it writes.
    """
    paragraphs = general_knowledge()
    pairs = zip(cycle(QUESTIONS), paragraphs, range(len(paragraphs)), strict=False)
    return encoder.examples([_Written(*pair) for pair in pairs])


def general_knowledge() -> list[str]:
    """Paragraphs that have nothing to do with any sheet."""
    return files("phinetune.use").joinpath("general_knowledge.txt").read_text(encoding="utf-8").splitlines()


@torch.inference_mode()
def mean_loss(model: Any, examples: Sequence[Example]) -> float:
    """Cross-entropy per answer token in nats."""
    rows = [row.to(device_of(model)) for row in validation_batches(examples, _ROW)]
    with row_loss(model) as loss_of:
        total = sum(float(loss_of(row)) for row in rows)
    return total / sum(row.answer_tokens for row in rows)
