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
from statistics import fmean
from typing import Any

import torch

from phinetune.errors import RunError
from phinetune.model.rows import fast_row_loss, plain_row_loss
from phinetune.settings import GenerateSettings
from phinetune.tokens.batch import in_rows, lay_out
from phinetune.tokens.encode import Encoder, Example, QuestionAnswer
from phinetune.use import generate
from phinetune.use.judge import Judge
from phinetune.use.scores import chrf, exact_match, goes_in_circles, rouge_l, token_f1
from phinetune.use.significance import Contrast, contrast

SCORES = ("exact", "f1", "rouge_l", "chrf", "right")
OnProgress = Callable[[str, int, int], None]
_ROW = 1024  # tokens; 30 pairs of the handbook on one thread, SmolLM2 in fp32: 10.0 s one by one, 4.6 s so


@dataclass(frozen=True)
class Side:
    """One model's answer to one question. `loss` is nats per token of the expected answer, `right` None when the judge
    gave no verdict, `in_circles` whether the answer says the same again and again.
    """

    answer: str
    loss: float
    tokens: int
    end: generate.End
    in_circles: bool
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
class Means:
    """Means of one model over `count` questions: the loss weighted by answer tokens, the scores, and `right` over the
    `judged` ones; None where there are none.
    """

    count: int
    judged: int
    loss: float
    exact: float
    f1: float
    rouge_l: float
    chrf: float
    right: float | None


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
) -> Means:
    """The tuned model alone, on what it was trained on.

    Raises SheetError when a question alone is too long.
    """
    examples = encoder.examples(pairs)
    told = partial(on_progress, "tuned, on what it was trained on")
    sides = _answer(model, encoder, pairs, examples, judge, settings, False, told)
    return means(sides, [example.answer_tokens for example in examples])


def means(sides: Sequence[Side], answer_tokens: Sequence[int]) -> Means:
    """Over one model's answers, and the tokens of each expected one."""
    rights = [side.right for side in sides if side.right is not None]
    losses = [side.loss * tokens for side, tokens in zip(sides, answer_tokens, strict=True)]
    return Means(
        count=len(sides),
        judged=len(rights),
        loss=sum(losses) / sum(answer_tokens),
        exact=fmean(side.exact for side in sides),
        f1=fmean(side.f1 for side in sides),
        rouge_l=fmean(side.rouge_l for side in sides),
        chrf=fmean(side.chrf for side in sides),
        right=fmean(rights) if rights else None,
    )


@torch.inference_mode()
def pair_losses(model: Any, examples: Sequence[Example]) -> list[float]:
    """Cross-entropy of every example per answer token in nats, in their order."""
    device = next(model.parameters()).device
    fast = fast_row_loss(model)
    if fast is None:
        with plain_row_loss(model) as row_loss:
            rows = ((lay_out([example]).to(device), example) for example in examples)
            return [float(row_loss(row)) / example.answer_tokens for row, example in rows]
    found: list[float] = []
    for members in in_rows(examples, _ROW):
        losses = fast.token_losses(lay_out(members).to(device)).cpu()
        found += [float(part.mean()) for part in torch.split(losses, [m.answer_tokens for m in members])]
    return found


def contrasts(compared: Sequence[Compared]) -> dict[str, Contrast]:
    """The loss (weighted by answer tokens, as in training) and every score of both models.

    `right` is over the pairs with a verdict on both answers. Raises RunError when there is none.
    """
    found = {}
    for name in ("loss", *SCORES):
        scored = _judged(compared) if name == "right" else compared
        if not scored:
            raise RunError("The judge gave no verdict on any question.", "See that its server runs, and compare again.")
        weights = [float(each.answer_tokens) for each in scored] if name == "loss" else None
        base, tuned = ([float(getattr(getattr(each, side), name)) for each in scored] for side in ("base", "tuned"))
        found[name] = contrast(base, tuned, weights)
    return found


def _judged(compared: Sequence[Compared]) -> list[Compared]:
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
        in_circles=share(lambda side: side.in_circles),
        mean_tokens=sum(side.tokens for side in sides) / count,
    )


def text_losses(model: Any, encoder: Encoder, paragraphs: Sequence[str]) -> Contrast:
    """Nats per token of plain text, for the base and the tuned model: what tuning cost elsewhere."""
    examples = [Example(tuple(ids), 1, row) for row, ids in enumerate(map(encoder.text_ids, paragraphs))]
    with _answering(model, base=True):
        before = pair_losses(model, examples)
    return contrast(before, pair_losses(model, examples), [float(example.answer_tokens) for example in examples])


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
        in_circles=goes_in_circles(text),
        exact=exact_match(text, hoped),
        f1=token_f1(text, hoped),
        rouge_l=rouge_l(text, hoped),
        chrf=chrf(text, hoped),
        right=None if right is None else float(right),
    )


def _answering(model: Any, base: bool) -> AbstractContextManager[Any]:
    return model.disable_adapter() if base else nullcontext()
