"""Runs that are drawn, not trained: their losses are functions of the progress, 0 to 1. And what is said of them."""

from __future__ import annotations

import math

import numpy as np

from phinetune.artifacts.diagnosis import Diagnosis, Facts, diagnose
from phinetune.artifacts.metrics import MetricsRow

EPOCHS, STEPS = 5, 100


def rows(train, measured, *, rate=2e-4, warmup=10, every=10) -> list[MetricsRow]:
    """A run of STEPS steps whose losses are functions of its progress, 0 to 1; validated from before the first step."""
    rows = [MetricsRow(0, 0.0, None, measured(0.0), None, None, 0, 0.0)]
    for step in range(1, STEPS + 1):
        now = step / STEPS
        rising = rate * step / (warmup + 1)
        falling = rate * (STEPS + 1 - step) / (STEPS - warmup)
        validated = measured(now) if step % every == 0 else None
        epoch = step * EPOCHS / STEPS
        rows.append(MetricsRow(step, epoch, train(step, now), validated, min(rising, falling), 1.0, 100, 1.0))
    return rows


def fall(start: float, end: float, speed: float = 6):
    return lambda now: end + (start - end) * math.exp(-speed * now)


def noisy(curve, share: float, seed: int = 0):
    noise = np.random.default_rng(seed).normal(0, share, STEPS + 1)
    return lambda step, now: curve(now) * math.exp(noise[step])


def good(share: float = 0.1, seed: int = 0, scale: float = 1.0) -> list[MetricsRow]:
    return rows(noisy(fall(3 * scale, 0.6 * scale), share, seed), fall(2.9 * scale, 0.75 * scale))


def with_losses(rows, train: dict[int, float | None]) -> list[MetricsRow]:
    """The rows with other training losses at some steps."""
    return [
        MetricsRow(r.step, r.epoch, train.get(r.step, r.train_loss), *list(vars(r).values())[3:])
        if r.step in train
        else r
        for r in rows
    ]


def found(rows, facts: Facts | None = None) -> dict[str, Diagnosis]:
    return {diagnosis.name: diagnosis for diagnosis in diagnose(rows, facts)}


def with_skipped(rows, steps: dict[int, float | None]) -> list[MetricsRow]:
    return [
        MetricsRow(r.step, r.epoch, steps[r.step], r.eval_loss, None, None, r.tokens, r.seconds)
        if r.step in steps
        else r
        for r in rows
    ]


def risen() -> list[MetricsRow]:
    return rows(noisy(fall(3, 0.3), 0.1), lambda now: 1.5 + 6 * (now - 0.4) ** 2)


def by_heart(kept: int, last: int, **facts) -> Facts:
    known = {"keep": "best", "kept_step": 40, "own_asked": 40, "own_right_kept": kept, "own_right_last": last}
    return Facts(**(known | facts))
