"""How far a mean over a few dozen questions can be trusted: intervals by resampling, and a paired test.

49 scores of the base model, 49 of the tuned one  ─►  0.62 (0.51 to 0.72), better by 0.41, p < 0.001
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_DRAWS = 10_000
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean and the interval that holds it with 95 % confidence."""

    mean: float
    low: float
    high: float


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


def p_value(base: Sequence[float], tuned: Sequence[float], seed: int = 0) -> float:
    """How often chance alone would make as large a difference between two paired samples, two-sided.

    A sign-flip randomisation test (Fisher's), with the observed arrangement counted in.
    """
    differences = np.asarray(tuned, dtype=np.float64) - np.asarray(base, dtype=np.float64)
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(_DRAWS, len(differences)))
    by_chance = np.abs((signs * differences).mean(axis=1))
    observed = abs(differences.mean())
    return float((np.sum(by_chance >= observed - 1e-12) + 1) / (_DRAWS + 1))
