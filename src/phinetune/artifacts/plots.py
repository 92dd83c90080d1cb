"""Rows of figures -> two pictures, made again at any time from the run folder alone.

    training_curves.png    training loss | held-out loss
                           learning rate | both losses
    loss_comparison.png    both losses, large: every step and the trend, the best step, the gap that opens after it

Drawn through matplotlib's objects, never pyplot: nothing global is touched, so a web server may draw in any thread.
The same rows make the same bytes.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from phinetune.artifacts.curves import Curves, Numbers
from phinetune.artifacts.metrics import MetricsRow, read_metrics
from phinetune.run_folder import RunFolder, write_bytes

# From Okabe and Ito's palette, which colour-blind eyes tell apart: https://jfly.uni-koeln.de/color/
TRAIN, VALIDATION, RATE = "#0072B2", "#D55E00", "#00795A"
INK, QUIET, GRID = "#222222", "#6b6b6b", "#e4e4e4"
FONT = "DejaVu Sans"  # comes with matplotlib, so the picture is the same everywhere
DPI = 150


@dataclass(frozen=True)
class _Scale:
    """Sizes in points: of lettering, and about those of the axes that it has to fit in."""

    title: float
    label: float
    tick: float
    width: float
    height: float


_PANEL = _Scale(title=16, label=13.5, tick=12.5, width=400, height=210)
_POSTER = _Scale(title=22, label=16, tick=15, width=820, height=360)


def draw_run(folder: RunFolder, title: str = "") -> tuple[Path, Path]:
    """Draw both pictures of a run, finished or still running, from its CSV.

    Raises RunError when the CSV is missing or damaged or a picture cannot be written.
    """
    rows, kept = read_metrics(folder.metrics_csv), _kept_step(folder)
    draw_curves(rows, folder.curves_png, title, kept)
    draw_loss_comparison(rows, folder.comparison_png, title, kept)
    return folder.curves_png, folder.comparison_png


def _kept_step(folder: RunFolder) -> int | None:
    """The step that became the model; None while the run goes on, or where the figures do not say."""
    try:
        kept = json.loads(folder.metrics_json.read_text(encoding="utf-8")).get("kept_step")
    except (OSError, ValueError, AttributeError):
        return None
    return kept if isinstance(kept, int) else None


def draw_curves(rows: Sequence[MetricsRow], path: Path, title: str = "", kept_step: int | None = None) -> None:
    """Four panels on 2250 x 1530 pixels. `title` says whose run it is and stands small above them; `kept_step` is the
    one whose state became the model.
    """
    curves = Curves.of(rows)
    figure = _figure(15, 10.2, title, curves)
    (training, validation), (rate, both) = figure.subplots(2, 2)
    _training(training, curves)
    _validation(validation, curves, kept_step)
    _learning_rate(rate, curves)
    _both(both, curves, _PANEL, kept_step)
    _heading(both, "Both losses: wide apart is learning by heart", _PANEL)
    _save(figure, path)


def draw_loss_comparison(rows: Sequence[MetricsRow], path: Path, title: str = "", kept_step: int | None = None) -> None:
    """Training and held-out loss on 2100 x 1200 pixels, under a heading that says what came out."""
    curves = Curves.of(rows)
    figure = _figure(14, 8, title, curves)
    axes = figure.subplots()
    _both(axes, curves, _POSTER, kept_step)
    _heading(axes, _outcome(curves), _POSTER)
    _save(figure, path)


def _training(axes: Axes, curves: Curves) -> None:
    _heading(axes, "Training loss: lower is better", _PANEL)
    if len(curves.train) == 0:
        _say_absent(axes, "No training step yet", _PANEL)
        return
    _frame(axes, curves, "nats per answer token", _PANEL)
    _draw_training(axes, curves, _PANEL)
    _leave_room(axes, curves.train)
    _label_ends(axes, [("trend" if curves.half_window else "training", curves.trend[-1], TRAIN)], _PANEL)


def _validation(axes: Axes, curves: Curves, kept_step: int | None) -> None:
    _heading(axes, "Held-out loss: on pairs it never trained on", _PANEL)
    if len(curves.eval) == 0:
        _say_absent(axes, "Nothing held out in this run", _PANEL)
        return
    _frame(axes, curves, "nats per answer token", _PANEL)
    _draw_validation(axes, curves, _PANEL)
    _leave_room(axes, curves.eval)
    _label_ends(axes, [("held-out", curves.eval[-1], VALIDATION)], _PANEL)
    _mark_validation(axes, curves, _PANEL, kept_step)


def _learning_rate(axes: Axes, curves: Curves) -> None:
    _heading(axes, "Learning rate: how far one step may go", _PANEL)
    if len(curves.rate) == 0:
        _say_absent(axes, "No training step yet", _PANEL)
        return
    peak = float(curves.rate.max())
    power = math.floor(math.log10(peak)) if peak > 0 else 0
    rate = curves.rate / 10.0**power
    _frame(axes, curves, "× 10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")), _PANEL)
    axes.fill_between(curves.rate_steps, rate, color=RATE, alpha=0.08, linewidth=0)
    axes.plot(curves.rate_steps, rate, color=RATE, linewidth=2.6, marker=_marker(rate), markersize=8)
    axes.set_ylim(0, float(rate.max()) * 1.15 or 1.0)


def _both(axes: Axes, curves: Curves, scale: _Scale, kept_step: int | None) -> None:
    if len(curves.train) == 0 and len(curves.eval) == 0:
        _say_absent(axes, "Nothing measured yet", scale)
        return
    _frame(axes, curves, "nats per answer token", scale)
    lines = np.concatenate([curves.trend, curves.eval])
    # A single wild step would press both curves flat; here it may leave the picture, its own panel shows it whole.
    _leave_room(axes, np.concatenate([lines, curves.train[curves.train < 1.5 * lines.max()]]))
    ends: list[tuple[str, float, str]] = []
    if len(curves.train):
        _draw_training(axes, curves, scale)
        ends.append(("training", curves.trend[-1], TRAIN))
    if len(curves.eval):
        _draw_validation(axes, curves, scale)
        ends.append(("held-out", curves.eval[-1], VALIDATION))
        if curves.rises:
            _shade_gap(axes, curves)
        _mark_validation(axes, curves, scale, kept_step)
    else:
        axes.text(0.98, 0.9, "Nothing held out in this run", transform=axes.transAxes, ha="right", **_ink(scale, QUIET))
    _label_ends(axes, ends, scale)


def _draw_training(axes: Axes, curves: Curves, scale: _Scale) -> None:
    x, bold = curves.steps, 3.4 if scale is _POSTER else 2.6
    if curves.half_window:
        axes.plot(x, curves.train, color=TRAIN, alpha=0.3, linewidth=1.1 if len(x) < 600 else 0.6)
    axes.plot(x, curves.trend, color=TRAIN, linewidth=bold, marker=_marker(curves.trend), markersize=8)


def _draw_validation(axes: Axes, curves: Curves, scale: _Scale) -> None:
    size = (9 if scale is _POSTER else 7) if len(curves.eval) <= 40 else 4
    axes.plot(curves.eval_steps, curves.eval, color=VALIDATION, linewidth=2.4, marker="o", markersize=size)


def _shade_gap(axes: Axes, curves: Curves) -> None:
    """Between the losses from the best step on."""
    assert curves.best is not None
    after = curves.steps >= curves.best[0]
    x = curves.steps[after]
    axes.fill_between(
        x, curves.trend[after], np.interp(x, curves.eval_steps, curves.eval), color=VALIDATION, alpha=0.1, linewidth=0
    )


def _mark_validation(axes: Axes, curves: Curves, scale: _Scale, kept_step: int | None) -> None:
    """Put a ring around the state that was kept, and name it, the lowest loss and the base model's."""
    taken = _drawn_points(axes)
    measured = dict(zip(curves.eval_steps.tolist(), curves.eval.tolist(), strict=True))
    if kept_step is not None and kept_step in measured:
        taken = _ring(axes, (kept_step, measured[kept_step]), "kept: {loss:.2f} at step {step:,}", scale, INK, taken)
    if curves.best is not None and curves.best[0] != kept_step:
        taken = _ring(axes, curves.best, "lowest: {loss:.2f} at step {step:,}", scale, QUIET, taken)
    if curves.eval_steps[0] == 0:
        loss = float(curves.eval[0])
        _call_out(axes, f"before training {loss:.2f}", (0, loss), scale, VALIDATION, taken)


def _ring(axes: Axes, at: tuple[int, float], text: str, scale: _Scale, colour: str, taken: Numbers) -> Numbers:
    ring: dict[str, Any] = {"markersize": 17, "markerfacecolor": "none", "markeredgewidth": 2.2}
    axes.plot([at[0]], [at[1]], "o", markeredgecolor=colour, clip_on=False, zorder=5, **ring)
    return _call_out(axes, text.format(step=at[0], loss=at[1]), at, scale, colour, taken)


def _drawn_points(axes: Axes) -> Numbers:
    """Points close together along every curve so far, as shares [n, 2] of the width and height of the axes."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    points = [np.empty((0, 2))]
    for line in axes.lines:
        if line.get_transform() == axes.transData:
            x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
            dense = np.union1d(x, np.linspace(x[0], x[-1], 500))
            points.append(np.column_stack([dense, np.interp(dense, x, y)]))
    shares: Numbers = (np.concatenate(points) - (left, low)) / (right - left, high - low)
    return shares


def _call_out(axes: Axes, text: str, point: tuple[float, float], scale: _Scale, colour: str, taken: Numbers) -> Numbers:
    """Write `text` to the right of a point, or above or below it at the end of a thin line: where it covers the
    fewest `taken` points, shares of the axes. Returns `taken` with the text and its line added."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    x, y = (point[0] - left) / (right - left), (point[1] - low) / (high - low)
    width, height = 0.58 * scale.label * len(text) / scale.width, 1.3 * scale.label / scale.height
    edge, side = 0.5, "center"  # the share of the text that is left of the point
    if x < width / 2:
        edge, side = 0.0, "left"
    elif x + width / 2 > 1.02:
        edge, side = 1.0, "right"

    def cost(place: tuple[float, float]) -> float:
        begin, middle = place[0] - edge * width, place[1]
        across = (taken[:, 0] > begin - 0.02) & (taken[:, 0] < begin + width + 0.02)
        covered = across & (np.abs(taken[:, 1] - middle) < 0.95 * height)
        near = (np.abs(taken[:, 0] - x) < 0.01) & (np.abs(taken[:, 1] - y) > 0.04)
        crossed = near & (np.abs(taken[:, 1] - (middle + y) / 2) < abs(middle - y) / 2)
        return float(covered.sum()) + 5 * bool(crossed.any()) + (abs(middle - y - 0.3) if place[0] == x else 0)

    places = [(x, at) for at in np.linspace(0.07, 0.93, 44) if abs(at - y) > 1.6 * height]
    if edge == 0:
        places += [(x + 0.04, y + rise * height) for rise in (0, 0.3, -0.3)]
    column, at = min(places, key=cost)
    line = {"arrowstyle": "-", "color": colour, "linewidth": 1.2, "shrinkB": 9}
    axes.annotate(
        text,
        point,
        xytext=(column, at),
        textcoords="axes fraction",
        ha=side,
        va="center",
        zorder=6,
        path_effects=[withStroke(linewidth=4, foreground="white")],
        arrowprops={**line, "relpos": (edge, 0 if at > y else 1)} if column == x else None,
        **_ink(scale, colour),
    )
    begin = column - edge * width
    written = np.linspace((begin, at), (begin + width, at), 60)
    return np.concatenate([taken, written, np.linspace((x, y), (column, at), 60)])


def _frame(axes: Axes, curves: Curves, unit: str, scale: _Scale) -> None:
    """Axes with steps along the bottom, epochs along the top and nothing that draws the eye from the curves."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#9a9a9a")
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=GRID, linewidth=0.9)
    axes.tick_params(length=0, pad=6, labelsize=scale.tick, labelcolor=QUIET, labelfontfamily=FONT)
    end = max(curves.last_step, 1)
    axes.set_xlim(-0.012 * end, end * 1.012)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    axes.set_xlabel("optimizer step", labelpad=6, **_ink(scale, QUIET))
    axes.set_ylabel(unit, labelpad=8, **_ink(scale, QUIET))
    epochs = int(end / curves.steps_per_epoch + 1e-6)
    stride = next(n * 10**k for k in range(9) for n in (1, 2, 5) if epochs <= 10 * n * 10**k)
    above: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "va": "bottom", **_ink(scale, QUIET)}
    for epoch in range(stride, epochs + 1, stride):
        at = epoch * curves.steps_per_epoch
        axes.axvline(at, color=GRID, linewidth=1.1, linestyle=(0, (4, 3)))
        axes.text(at, 1.01, f"epoch {epoch}" if epoch + stride > epochs else str(epoch), ha="center", **above)


def _leave_room(axes: Axes, values: Numbers) -> None:
    """Limits that show every value and leave a tenth above and below for what is written."""
    low, high = float(values.min()), float(values.max())
    margin = 0.1 * (high - low) or 0.1 * abs(high) or 1.0
    axes.set_ylim(low - margin, high + margin)


def _label_ends(axes: Axes, ends: Sequence[tuple[str, float, str]], scale: _Scale) -> None:
    """Name each line and its last value beyond its right end, two of them moved apart where they end close."""
    low, high = axes.get_ylim()
    ends = sorted(ends, key=lambda end: end[1])
    heights = [(value - low) / (high - low) for _, value, _ in ends]
    if len(ends) == 2 and (lack := 2.4 * scale.label / scale.height - (heights[1] - heights[0])) > 0:
        heights = [heights[0] - lack / 2, heights[1] + lack / 2]
    for height, (name, value, colour) in zip(heights, ends, strict=True):
        place: dict[str, Any] = {"transform": axes.transAxes, "va": "center", "linespacing": 1.15}
        axes.text(1.03, height, f"{name}\n{value:.2f}", **place, **_ink(scale, colour))


def _outcome(curves: Curves) -> str:
    """The run in one line, for people who do not know what a loss is."""
    if len(curves.eval) == 0:
        return "Lower is better: loss on the training pairs"
    first, lowest = float(curves.eval[0]), float(curves.eval.min())
    if len(curves.eval) == 1:
        return f"Lower is better: held-out loss is {first:.2f}"
    if lowest == first:
        return f"Lower is better: held-out loss never fell below its first {first:.2f}"
    fell = f"Lower is better: held-out loss fell from {first:.2f} to {lowest:.2f}"
    return fell + (", then rose" if curves.rises else "")


def _heading(axes: Axes, text: str, scale: _Scale) -> None:
    axes.set_title(
        text, loc="left", pad=2.2 * scale.label, fontsize=scale.title, fontfamily=FONT, color=INK, fontweight="bold"
    )


def _say_absent(axes: Axes, text: str, scale: _Scale) -> None:
    axes.set_facecolor("#f6f6f6")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", **_ink(scale, QUIET))


def _ink(scale: _Scale, colour: str) -> dict[str, Any]:
    return {"fontsize": scale.label, "fontfamily": FONT, "color": colour}


def _marker(values: Numbers) -> str:
    """A line of one point cannot be seen, one of a few is better seen with its points."""
    return "o" if len(values) < 12 else ""


def _figure(width: float, height: float, title: str, curves: Curves) -> Figure:
    layout = ConstrainedLayoutEngine(w_pad=0.2, h_pad=0.2, wspace=0.03, hspace=0.04)
    figure = Figure(figsize=(width, height), dpi=DPI, layout=layout, facecolor="white")
    style = {"x": 0.014, "ha": "left", "fontfamily": FONT, "color": QUIET}
    if title:
        figure.suptitle(_drawable(title), fontsize=14, parse_math=False, **style)
    if curves.half_window:
        window = 2 * curves.half_window + 1
        note = (
            f"Pale: every step. Bold: the trend, at each step a straight line fitted to the {window} steps around it."
        )
        figure.supxlabel(note, fontsize=12.5, **style)
    return figure


def _drawable(title: str) -> str:
    """The title in one line that fits, with a mark for each character that the font does not have."""
    line = " ".join(title.split())
    known = get_font(findfont(FONT)).get_charmap()
    shown = "".join(letter if ord(letter) in known else "\N{WHITE SQUARE}" for letter in line)
    return shown if len(shown) <= 120 else shown[:119] + "…"


def _save(figure: Figure, path: Path) -> None:
    """Raises RunError when the disk does not take the picture."""
    data = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(data, format="png", dpi=DPI, metadata={"Software": None})
    write_bytes(path, data.getvalue())
