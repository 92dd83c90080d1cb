"""Comparisons without a model: as many questions, right answers and verdicts as a test wants."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from phinetune.api.comparison import Comparison
from phinetune.use.compare import Compared, Means, Side, behaviour, contrasts, means
from phinetune.use.significance import contrast

_PARAGRAPHS = 14


def side(f1: float, loss: float, right: float | None, answer: str = "It is plum.") -> Side:
    return Side(answer, loss, 5, "end-of-text", False, float(f1 == 1), f1, f1, f1, right)


def comparison(count: int, judged: int | None = None, better: float = 0.3, **changes: Any) -> Comparison:
    """`count` questions held out in training, of which the judge had a say on the first `judged`; the tuned model's
    overlap is `better` by that much, every second of its answers is right, and none of the base model's is.
    """
    told = [number < (count if judged is None else judged) for number in range(count)]
    pairs = [
        Compared(
            row=number + 2,
            question=f"Question {number}?",
            expected="Plum.",
            answer_tokens=4 + number % 3,
            base=side(0.2 + 0.01 * (number % 5), 3.0 + 0.1 * (number % 4), 0.0 if is_told else None),
            tuned=side(0.2 + better + 0.02 * (number % 3), 1.0 + 0.2 * (number % 3), number % 2 if is_told else None),
        )
        for number, is_told in enumerate(told)
    ]
    tuned = [pair.tuned for pair in pairs]
    found = Comparison(
        questions="held out in training",
        judge="contains",
        scores=contrasts(pairs),
        base=behaviour([pair.base for pair in pairs]),
        tuned=behaviour(tuned),
        seen=known(count=50),
        unseen=means(tuned, [pair.answer_tokens for pair in pairs]),
        general_text=general_text(0.0),
        pairs=pairs,
    )
    return replace(found, **changes)


def known(**changes: Any) -> Means:
    """The tuned model on what it was trained on."""
    found = Means(count=50, judged=50, loss=0.4, exact=0.3, f1=0.8, rouge_l=0.8, chrf=0.8, right=0.52)
    return replace(found, **changes)


def general_text(cost: float, spread: float = 0.1) -> Any:
    """So many nats a token more on every paragraph, give or take the spread."""
    base = [3.0 + 0.1 * number for number in range(_PARAGRAPHS)]
    gains = [cost + spread * (1 if number % 2 else -1) for number in range(_PARAGRAPHS)]
    return contrast(base, [before + gain for before, gain in zip(base, gains, strict=True)], [40.0] * _PARAGRAPHS)
