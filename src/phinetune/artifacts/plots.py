"""Rows of figures -> two pictures, made again at any time from the run folder alone.

    training_curves.png    training loss | validation loss
                           learning rate | both losses
    loss_comparison.png    both losses, large: raw and trend, the best step, the gap that opens after it

Drawn through matplotlib's objects, never pyplot: nothing global is touched, so a web server may draw from any thread.
The same rows make the same bytes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from phinetune.artifacts.metrics import MetricsRow, best_validation, read_metrics, validations
from phinetune.run_folder import RunFolder, write_bytes

# Okabe and Ito's palette, told apart by colour-blind eyes: https://jfly.uni-koeln.de/color/
TRAIN, VALIDATION, RATE = "#0072B2", "#D55E00", "#00795A"
INK, QUIET, GRID = "#222222", "#6b6b6b", "#e3e3e3"
FONT = "DejaVu Sans"  # comes with matplotlib, so the picture is the same everywhere
DPI = 150

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Type:
    """Sizes of the lettering, in points."""

    title: float
    label: float
    tick: float


_PANEL = _Type(title=16, label=13.5, tick=12.5)
_POSTER = _Type(title=21, label=15.5, tick=14.5)


def draw_run(folder: RunFolder, title: str = "") -> tuple[Path, Path]:
    """Draw both pictures of a run, finished or still running, from its CSV.

    Raises RunError when the CSV is missing or damaged or the pictures cannot be written.
    """
    rows = read_metrics(folder.metrics_csv)
    draw_curves(rows, folder.curves_png, title)
    draw_loss_comparison(rows, folder.comparison_png, title)
    return folder.curves_png, folder.comparison_png


def draw_curves(rows: Sequence[MetricsRow], path: Path, title: str = "") -> None:
    """Four panels, 2250 x 1530 pixels. `title` says whose run it is; it stands above them."""
    figure = _figure(15, 10.2, title)
    grid = figure.subplots(2, 2)
    curves = _Curves.of(rows)
    _training(grid[0, 0], curves)
    _validation(grid[0, 1], curves)
    _learning_rate(grid[1, 0], curves)
    _both(grid[1, 1], curves, _PANEL)
    grid[1, 1].set_title("Both losses: side by side is well, wide apart is learning by heart")
    _save(figure, path)


def draw_loss_comparison(rows: Sequence[MetricsRow], path: Path, title: str = "") -> None:
    """Training and validation loss in one picture of 2100 x 1200 pixels, its title saying what came out."""
    figure = _figure(14, 8, title)
    axes = figure.subplots()
    curves = _Curves.of(rows)
    _both(axes, curves, _POSTER)
    _heading(axes, _outcome(curves), _POSTER)
    _save(figure, path)


@dataclass(frozen=True)
class _Curves:
    """The rows as the lines that are drawn."""

    steps: Numbers
    train: Numbers
    trend: Numbers
    half_window: int  # steps to each side that the trend looks at; 0: too few steps for one
    rate_steps: Numbers
    rate: Numbers
    eval_steps: Numbers
    eval: Numbers
    best: tuple[int, float] | None
    last_step: int
    steps_per_epoch: float

    @classmethod
    def of(cls, rows: Sequence[MetricsRow]) -> _Curves:
        train = np.array([(r.step, r.train_loss) for r in rows if r.train_loss is not None], float).reshape(-1, 2)
        rate = np.array([(r.step, r.learning_rate) for r in rows if r.learning_rate is not None], float)
        rate = rate.reshape(-1, 2)
        measured = np.array(validations(rows), float).reshape(-1, 2)
        half_window = min(max(len(train) // 20, 3), 50) if len(train) >= 12 else 0
        last = rows[-1] if rows else None
        return cls(
            steps=train[:, 0],
            train=train[:, 1],
            trend=_trend(train[:, 1], half_window),
            half_window=half_window,
            rate_steps=rate[:, 0],
            rate=rate[:, 1],
            eval_steps=measured[:, 0],
            eval=measured[:, 1],
            best=best_validation(rows),
            last_step=last.step if last else 0,
            steps_per_epoch=last.step / last.epoch if last and last.epoch > 0 else math.inf,
        )

    @property
    def rises(self) -> bool:
        """Validation ended above its best by more than a hundredth: enough to see, and to speak of."""
        return self.best is not None and bool(self.eval[-1] > self.best[1] + 0.01)


def _trend(values: Numbers, half_window: int) -> Numbers:
    """Smoothed values: at each place a straight line fitted to its neighbours, near ones weighing more.

    Local linear regression with triangular weights (Cleveland 1979 without the robustness steps). Unlike a running
    mean it neither lags nor bends at the ends, where a loss curve is steepest and where people read its outcome.
    """
    if half_window == 0 or len(values) == 0:
        return values
    offsets = np.arange(-half_window, half_window + 1)
    weights = 1 - np.abs(offsets) / (half_window + 1)

    def around(signal: Numbers, power: int) -> Numbers:
        # sum over neighbours of weight * offset**power * signal; np.convolve flips the kernel, [::-1] flips it back
        full = np.convolve(signal, (weights * offsets**power)[::-1])
        return full[half_window : half_window + len(signal)]

    ones = np.ones(len(values))
    s0, s1, s2 = (around(ones, power) for power in range(3))
    t0, t1 = (around(values, power) for power in range(2))
    fitted: Numbers = (s2 * t0 - s1 * t1) / (s0 * s2 - s1 * s1)
    return fitted


def _training(axes: Axes, curves: _Curves) -> None:
    _frame(axes, curves, _PANEL)
    _heading(axes, "Training loss: lower is better", _PANEL)
    axes.set_ylabel("nats per answer token")
    if len(curves.train) == 0:
        return _say_absent(axes, "No training step yet")
    _draw_training(axes, curves)
    ends = [("trend" if curves.half_window else "training", float(curves.trend[-1]), TRAIN)]
    _label_ends(axes, ends, _PANEL)


def _validation(axes: Axes, curves: _Curves) -> None:
    _frame(axes, curves, _PANEL)
    _heading(axes, "Validation loss: on pairs it never trained on", _PANEL)
    if len(curves.eval) == 0:
        return _say_absent(axes, "No validation in this run")
    _draw_validation(axes, curves)
    _mark_best(axes, curves, _PANEL)


def _learning_rate(axes: Axes, curves: _Curves) -> None:
    _frame(axes, curves, _PANEL)
    _heading(axes, "Learning rate: how big a step may be", _PANEL)
    if len(curves.rate) == 0:
        return _say_absent(axes, "No training step yet")
    power = math.floor(math.log10(curves.rate.max())) if curves.rate.max() > 0 else 0
    scaled = curves.rate / 10.0**power
    axes.set_ylabel(f"× 10{str(power).translate(_RAISED)}")
    axes.plot(curves.rate_steps, scaled, color=RATE, linewidth=2.6, marker=_marker(scaled))
    axes.fill_between(curves.rate_steps, scaled, color=RATE, alpha=0.08, linewidth=0)
    axes.set_ylim(0, scaled.max() * 1.12 or 1)


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
