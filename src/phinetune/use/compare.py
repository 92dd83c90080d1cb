"""Base and tuned model side by side on the same questions: losses, answers and their scores.

    pairs ─► losses of both          ─┐
          ─► greedy answers of both  ─┴─► one `Compared` a pair ─► means with intervals, and what they mean

The base model is the tuned one with its adapter off: the same weights in memory, one batched pass for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from phinetune.errors import RunError
from phinetune.model.rows import fast_row_loss, plain_row_loss
from phinetune.settings import GenerateSettings
from phinetune.tokens.batch import validation_batches
from phinetune.tokens.encode import Encoder, Example, QuestionAnswer
from phinetune.use import generate
from phinetune.use.judge import Judge
from phinetune.use.scores import chrf, exact_match, goes_in_circles, rouge_l, token_f1
from phinetune.use.significance import Estimate, estimate, p_value

SCORES = ("exact", "f1", "rouge_l", "chrf", "right")
OnProgress = Callable[[str, int, int], None]
_LONGEST_ROW = 1 << 30  # every pair is a row of its own, so that each has its own loss


@dataclass(frozen=True)
class Side:
    """One model's answer to one question. `loss` is nats per token of the expected answer, `right` None when the judge
    gave no verdict.
    """

    answer: str
    loss: float
    tokens: int
    end: generate.End
    exact: float
    f1: float
    rouge_l: float
    chrf: float
    right: float | None


@dataclass(frozen=True)
class Compared:
    row: int
    question: str
    expected: str
    answer_tokens: int
    base: Side
    tuned: Side


@dataclass(frozen=True)
class Contrast:
    """A figure of both models, the difference tuned - base, and how often chance alone would make as large a one."""

    base: Estimate
    tuned: Estimate
    difference: Estimate
    p_value: float


@dataclass(frozen=True)
class Behaviour:
    """How a model's answers end and what they are like: shares of all answers, and tokens."""

    stopped_by_itself: float
    ran_into_next_question: float
    cut_at_the_longest: float
    empty: float
    in_circles: float
    mean_tokens: float


def compare(
    model: Any,
    encoder: Encoder,
    pairs: Sequence[QuestionAnswer],
    judge: Judge,
    settings: GenerateSettings,
    on_progress: OnProgress = lambda *_: None,
) -> list[Compared]:
    """Ask both models every question of `pairs`, greedily unless `settings` say otherwise; `model` is a PeftModel.

    Raises SheetError when a question alone is too long.
    """
    examples = encoder.examples(pairs)
    base, tuned = (
        _answer(model, encoder, pairs, examples, judge, settings, base, partial(on_progress, name))
        for name, base in (("base", True), ("tuned", False))
    )
    return [
        Compared(pair.row, pair.question, pair.answer, example.answer_tokens, before, after)
        for pair, example, before, after in zip(pairs, examples, base, tuned, strict=True)
    ]


def tuned_means(
    model: Any,
    encoder: Encoder,
    pairs: Sequence[QuestionAnswer],
    judge: Judge,
    settings: GenerateSettings,
    on_progress: OnProgress = lambda *_: None,
) -> dict[str, float]:
    """The tuned model alone: means of its loss (weighted by answer tokens) and scores, `right` if any was judged.

    Raises SheetError when a question alone is too long.
    """
    examples = encoder.examples(pairs)
    told = partial(on_progress, "tuned, on what it was trained on")
    sides = _answer(model, encoder, pairs, examples, judge, settings, False, told)
    found = {}
    for name in ("loss", *SCORES):
        scored = [
            (float(value), example.answer_tokens if name == "loss" else 1)
            for side, example in zip(sides, examples, strict=True)
            if (value := getattr(side, name)) is not None
        ]
        if scored:
            found[name] = sum(value * weight for value, weight in scored) / sum(weight for _, weight in scored)
    return found


@torch.inference_mode()
def pair_losses(model: Any, examples: Sequence[Example]) -> list[float]:
    """Cross-entropy of every example per answer token in nats, in their order."""
    device = next(model.parameters()).device
    fast = fast_row_loss(model)
    losses = []
    with nullcontext(fast) if fast is not None else plain_row_loss(model) as row_loss:
        for example in examples:
            [row] = validation_batches([example], _LONGEST_ROW)
            row = row.to(device)
            total = float(row_loss(row))
            losses.append(total / row.answer_tokens)
    return losses


def contrasts(compared: Sequence[Compared]) -> dict[str, Contrast]:
    """The loss (weighted by answer tokens, as in training) and every score of both models, with 95 % intervals.

    `right` is over the pairs with a verdict on both answers. Raises RunError when there is none.
    """
    found = {}
    for name in ("loss", *SCORES):
        scored = judged(compared) if name == "right" else compared
        if not scored:
            raise RunError("The judge gave no verdict on any question.", "See that its server runs, and compare again.")
        weight = [float(each.answer_tokens) for each in scored] if name == "loss" else None
        base, tuned = ([float(getattr(getattr(each, side), name)) for each in scored] for side in ("base", "tuned"))
        differences = [after - before for before, after in zip(base, tuned, strict=True)]
        found[name] = Contrast(
            base=estimate(base, weight),
            tuned=estimate(tuned, weight),
            difference=estimate(differences, weight),
            p_value=p_value(base, tuned),
        )
    return found


def judged(compared: Sequence[Compared]) -> list[Compared]:
    """The pairs with a verdict on both answers."""
    return [each for each in compared if each.base.right is not None and each.tuned.right is not None]


def behaviour(sides: Sequence[Side]) -> Behaviour:
    """How the answers of one model end."""
    count = len(sides)

    def share(of: Callable[[Side], bool]) -> float:
        return sum(map(of, sides)) / count

    return Behaviour(
        stopped_by_itself=share(lambda side: side.end == "end-of-text"),
        ran_into_next_question=share(lambda side: side.end == "next question"),
        cut_at_the_longest=share(lambda side: side.end == "length"),
        empty=share(lambda side: not side.answer),
        in_circles=share(lambda side: goes_in_circles(side.answer)),
        mean_tokens=sum(side.tokens for side in sides) / count,
    )


def text_losses(model: Any, encoder: Encoder, paragraphs: Sequence[str]) -> dict[str, float]:
    """Nats per token of plain text, for the base and the tuned model: what tuning cost elsewhere."""
    examples = [Example(tuple(ids), 1, row) for row, ids in enumerate(map(encoder.text_ids, paragraphs))]
    weights = [float(example.answer_tokens) for example in examples]
    found = {}
    for base in (True, False):
        with _answering(model, base):
            losses = pair_losses(model, examples)
        found["base" if base else "tuned"] = sum(map(float.__mul__, losses, weights)) / sum(weights)
    return found


def as_rows(compared: Sequence[Compared]) -> list[dict[str, Any]]:
    """JSON values, worst tuned answer first: the lowest F1, of those the highest loss."""
    return [asdict(each) for each in sorted(compared, key=lambda each: (each.tuned.f1, -each.tuned.loss))]


def _answer(
    model: Any,
    encoder: Encoder,
    pairs: Sequence[QuestionAnswer],
    examples: Sequence[Example],
    judge: Judge,
    settings: GenerateSettings,
    base: bool,
    told: Callable[[int, int], None],
) -> list[Side]:
    """The answers of one of the models, scored; `told` is told how many of all are written."""
    with _answering(model, base):
        losses = pair_losses(model, examples)
        questions = [pair.question for pair in pairs]
        written = generate.write(model, encoder, questions, settings, lambda done: told(done, len(pairs)))
    return [_side(pair, text, loss, judge) for pair, text, loss in zip(pairs, written, losses, strict=True)]


def _side(pair: QuestionAnswer, written: generate.Written, loss: float, judge: Judge) -> Side:
    text, hoped = written.text, pair.answer
    right = judge(pair.question, hoped, text)
    return Side(
        answer=text,
        loss=loss,
        tokens=written.tokens,
        end=written.end,
        exact=exact_match(text, hoped),
        f1=token_f1(text, hoped),
        rouge_l=rouge_l(text, hoped),
        chrf=chrf(text, hoped),
        right=None if right is None else float(right),
    )


def _answering(model: Any, base: bool) -> AbstractContextManager[Any]:
    return model.disable_adapter() if base else nullcontext()
