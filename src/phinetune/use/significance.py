"""How far a mean over a few dozen questions can be trusted: intervals by resampling, and a paired test.

49 scores of the base model, 49 of the tuned one  ─►  0.62 (0.51 to 0.72), better by 0.41, p < 0.001
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_DRAWS = 10_000
_CONFIDENCE = 0.95
_FEWEST = 10  # questions; an interval of fewer says more than they tell


@dataclass(frozen=True)
class Estimate:
    """A mean and the interval that holds it with 95 % confidence."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Contrast:
    """A figure of both models over `count` questions, the difference tuned - base, and how often chance alone would
    make as large a one. Where the questions are `too_few`, intervals and p value are numbers that nobody is shown.
    """

    base: Estimate
    tuned: Estimate
    difference: Estimate
    p_value: float
    count: int
    too_few: bool


def are_too_few(questions: int) -> bool:
    """Whether so few questions say nothing about how sure a difference is."""
    return questions < _FEWEST


def contrast(base: Sequence[float], tuned: Sequence[float], weights: Sequence[float] | None = None) -> Contrast:
    """Two paired samples side by side; interval and test are of the same (weighted) mean difference."""
    differences = [after - before for before, after in zip(base, tuned, strict=True)]
    return Contrast(
        base=estimate(base, weights),
        tuned=estimate(tuned, weights),
        difference=estimate(differences, weights),
        p_value=p_value(base, tuned, weights),
        count=len(differences),
        too_few=are_too_few(len(differences)),
    )


def estimate(values: Sequence[float], weights: Sequence[float] | None = None, seed: int = 0) -> Estimate:
    """The (weighted) mean of `values`, with a percentile bootstrap interval over the pairs (Efron, 1979).

    `weights` are such as answer tokens, where the values are losses per token.
    """
    scores = np.asarray(values, dtype=np.float64)
    weight = np.ones_like(scores) if weights is None else np.asarray(weights, dtype=np.float64)
    chosen = np.random.default_rng(seed).integers(0, len(scores), size=(_DRAWS, len(scores)))
    means = (scores * weight)[chosen].sum(axis=1) / weight[chosen].sum(axis=1)
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return Estimate(float((scores * weight).sum() / weight.sum()), float(low), float(high))


def p_value(
    base: Sequence[float], tuned: Sequence[float], weights: Sequence[float] | None = None, seed: int = 0
) -> float:
    """How often chance alone would make as large a (weighted) mean difference between two paired samples, two-sided.

    A sign-flip randomisation test (Fisher's), with the observed arrangement counted in.
    """
    differences = np.asarray(tuned, dtype=np.float64) - np.asarray(base, dtype=np.float64)
    weighted = differences if weights is None else differences * np.asarray(weights, dtype=np.float64)
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(_DRAWS, len(weighted)))
    by_chance = np.abs(signs @ weighted)
    observed = abs(weighted.sum()) - 1e-12 * np.abs(weighted).sum()  # as large up to rounding is as large
    return float((np.sum(by_chance >= observed) + 1) / (_DRAWS + 1))
