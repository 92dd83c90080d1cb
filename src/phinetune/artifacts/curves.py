"""Rows of figures -> the lines that the pictures draw: both losses, the trend of the noisy one, the learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from phinetune.artifacts.metrics import MetricsRow, best_validation, validations

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Curves:
    """The rows as the lines that are drawn; x and y of one line have the same length."""

    steps: Numbers
    train: Numbers
    trend: Numbers
    half_window: int  # steps to each side that the trend looks at; 0: too few for a trend
    rate_steps: Numbers
    rate: Numbers
    eval_steps: Numbers
    eval: Numbers
    best: tuple[int, float] | None
    last_step: int
    steps_per_epoch: float

    @classmethod
    def of(cls, rows: Sequence[MetricsRow]) -> Curves:
        steps, train = _line([(row.step, row.train_loss) for row in rows if row.train_loss is not None])
        rate_steps, rate = _line([(row.step, row.learning_rate) for row in rows if row.learning_rate is not None])
        eval_steps, measured = _line(validations(rows))
        half_window = min(max(len(train) // 12, 5), 100) if len(train) >= 12 else 0
        last = rows[-1] if rows else None
        return cls(
            steps=steps,
            train=train,
            trend=smooth_trend(train, half_window),
            half_window=half_window,
            rate_steps=rate_steps,
            rate=rate,
            eval_steps=eval_steps,
            eval=measured,
            best=best_validation(rows),
            last_step=last.step if last else 0,
            steps_per_epoch=last.step / last.epoch if last and last.epoch > 0 else math.inf,
        )

    @property
    def rises(self) -> bool:
        """Validation ended above its best by more than a hundredth: enough to see and to speak of."""
        return self.best is not None and bool(self.eval[-1] > self.best[1] + 0.01)


def _line(points: Sequence[tuple[int, float]]) -> tuple[Numbers, Numbers]:
    table = np.array(points, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def smooth_trend(values: Numbers, half_window: int) -> Numbers:
    """At each place the value of a straight line fitted to its neighbours, near ones weighing more.

    Local linear regression with triangular weights (Cleveland 1979, without the robustness steps). A running mean
    lags, or bends at the ends, where a loss curve is steepest and where people read what came out; this does neither.
    A single wild step is first brought near the median of its five neighbours: it should not raise a hill.
    """
    if half_window == 0:
        return values
    fives = np.lib.stride_tricks.sliding_window_view(np.pad(values, 2, "reflect", reflect_type="odd"), 5)
    median = np.median(fives, axis=1)
    bound = 10 * float(np.median(np.abs(values - median)))
    values = median + np.clip(values - median, -bound, bound)
    offsets = np.arange(-half_window, half_window + 1)
    weights = 1 - np.abs(offsets) / (half_window + 1)

    def around(signal: Numbers, power: int) -> Numbers:
        # Sum over the neighbours of weight * offset^power * value. np.convolve flips its kernel, [::-1] flips it back.
        full = np.convolve(signal, (weights * offsets**power)[::-1])
        return full[half_window : half_window + len(signal)]

    ones = np.ones_like(values)
    w0, w1, w2 = (around(ones, power) for power in range(3))
    v0, v1 = (around(values, power) for power in range(2))
    fitted: Numbers = (w2 * v0 - w1 * v1) / (w0 * w2 - w1 * w1)
    return fitted
