"""The scores of a comparison as lines to read, the same on a terminal page and in the report.

score                 base    tuned   difference (95 %)           by chance
shared words (F1)     0.214   0.530   +0.316 (+0.241 to +0.392)   p < 0.001
right (by contains)   0.000   0.400   +0.400                                    too few were judged
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SCORES = {
    "right": "right (by {judge})",
    "exact": "word for word",
    "f1": "shared words (F1)",
    "rouge_l": "same order (ROUGE-L)",
    "chrf": "shared letters (chrF)",
}
LOSS, PERPLEXITY = "loss, nats per token", "perplexity (e^loss)"


@dataclass(frozen=True)
class ScoreRow:
    """One score as text. The perplexity is the loss in another form, so its difference and test are the loss's."""

    name: str
    base: str
    tuned: str
    difference: str
    by_chance: str


@dataclass(frozen=True)
class ScoreTable:
    """All of them. `note` says why intervals are missing, None where all are there; `has_intervals`: some are."""

    rows: tuple[ScoreRow, ...]
    has_intervals: bool
    note: str | None


def score_table(scores: Mapping[str, Mapping[str, Any]], judge: str) -> ScoreTable:
    """The `scores` of a comparison.json, without interval and test where the questions are too few."""
    names = SCORES | {"loss": LOSS}
    rows = [_row(title.format(judge=judge), scores[name]) for name, title in names.items()]
    base, tuned = (f"{perplexity(scores['loss'], side):.1f}" for side in ("base", "tuned"))
    return ScoreTable(
        rows=(*rows, ScoreRow(PERPLEXITY, base, tuned, "", "")),
        has_intervals=not all(map(is_too_few, scores.values())),
        note=_on_intervals(scores),
    )


def perplexity(loss: Mapping[str, Any], side: str, part: str = "mean") -> float:
    """exp(loss) of the base or the tuned model; `part` low or high: an end of its interval."""
    return math.exp(loss[side][part])


def is_too_few(score: Mapping[str, Any]) -> bool:
    """Whether a score is of too few questions for an interval; a comparison of an earlier version does not say."""
    return bool(score.get("too_few", False))


def _on_intervals(scores: Mapping[str, Mapping[str, Any]]) -> str | None:
    if is_too_few(scores["f1"]):
        return "No intervals: these are too few questions to say how sure this is."
    if is_too_few(scores["right"]):
        return "No interval for the answers right: too few were judged to say how sure that is."
    return None


def _row(name: str, score: Mapping[str, Any]) -> ScoreRow:
    gain = score["difference"]
    difference, by_chance = f"{gain['mean']:+.3f}", ""
    if not is_too_few(score):
        difference += f" ({gain['low']:+.3f} to {gain['high']:+.3f})"
        by_chance = "p < 0.001" if score["p_value"] < 0.001 else f"p = {score['p_value']:.3f}"
    return ScoreRow(name, f"{score['base']['mean']:.3f}", f"{score['tuned']['mean']:.3f}", difference, by_chance)
