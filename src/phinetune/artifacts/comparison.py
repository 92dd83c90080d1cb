"""Base and tuned model side by side: comparison.json -> a workbook to read and a picture to look at.

comparison.json  ─►  comparison.xlsx   every question with both answers, worst first, coloured by score
                 ─►  comparison.png    the scores of both with their 95 % intervals | the loss of every question
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import xlsxwriter
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from phinetune.artifacts.score_table import LOSS, PERPLEXITY, SCORES, is_too_few, perplexity, score_table
from phinetune.errors import RunError
from phinetune.run_folder import RunFolder, atomic_file, write_bytes, write_json

_BASE, _TUNED, _INK, _QUIET, _GRID = "#8a8a8a", "#0072B2", "#222222", "#6b6b6b", "#e4e4e4"
_LONGEST_NAME = 40  # letters of a file in a title
_LONGEST_CELL = 32_767  # characters, Excel's own limit


@dataclass(frozen=True)
class _Column:
    """A column of the workbook: its cells, and whether high ones are good (green), bad (red), or neither."""

    title: str
    width: int
    cell: Callable[[dict[str, Any]], str | float | None]
    good: Literal["high", "low"] | None = None
    decimals: bool = True


def _score(title: str, name: str, good: Literal["high", "low"] = "high", decimals: bool = True) -> list[_Column]:
    """The tuned model's and the base model's."""
    return [
        _Column(title, 8, lambda pair: pair["tuned"][name], good, decimals),
        _Column(f"{title}, base", 11, lambda pair: pair["base"][name], good, decimals),
    ]


# What is read first stands first.
_COLUMNS = (
    _Column("Question", 40, lambda pair: pair["question"]),
    _Column("Expected", 45, lambda pair: pair["expected"]),
    _Column("Base model", 45, lambda pair: pair["base"]["answer"]),
    _Column("Tuned model", 45, lambda pair: pair["tuned"]["answer"]),
    *_score("Right", "right", decimals=False),
    *_score("F1", "f1"),
    *_score("Loss", "loss", "low"),
    _Column("Mark", 12, lambda pair: _mark(pair["tuned"])),
    _Column("Mark, base", 12, lambda pair: _mark(pair["base"])),
    _Column("Row", 7, lambda pair: pair["row"], decimals=False),
    *_score("ROUGE-L", "rouge_l"),
    *_score("chrF", "chrf"),
    _Column("Ended", 14, lambda pair: pair["tuned"]["end"]),
    _Column("Ended, base", 14, lambda pair: pair["base"]["end"]),
)


def write_comparison(folder: RunFolder, record: dict[str, Any]) -> None:
    """Write comparison.json, .xlsx and .png. Raises RunError when one cannot be written."""
    write_json(folder.answers_json, record)
    _write_workbook(folder, record)
    write_bytes(folder.answers_png, _draw(record))


def read_comparison(folder: RunFolder) -> dict[str, Any] | None:
    """comparison.json; None where no comparison was made. Raises RunError when it is damaged."""
    if not folder.answers_json.is_file():
        return None
    try:
        record: dict[str, Any] = json.loads(folder.answers_json.read_text(encoding="utf-8"))
        record["scores"]["f1"]["tuned"]["mean"], record["pairs"], record["verdict"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise RunError(f"{folder.answers_json} is damaged.", "Make it again with `phinetune compare`.") from None
    return record


def _write_workbook(folder: RunFolder, record: dict[str, Any]) -> None:
    with atomic_file(folder.answers_xlsx) as temporary, xlsxwriter.Workbook(temporary) as book:
        bold, text = book.add_format({"bold": True}), book.add_format({"text_wrap": True, "valign": "top"})
        number = book.add_format({"num_format": "0.00", "valign": "top"})
        sheet, last = book.add_worksheet("Answers"), len(record["pairs"])
        for at, column in enumerate(_COLUMNS):
            sheet.write_string(0, at, column.title, bold)
            sheet.set_column(at, at, column.width)
            for line, pair in enumerate(record["pairs"], start=1):
                cell = column.cell(pair)
                if isinstance(cell, str):  # as text and nothing else: no cell becomes a formula
                    sheet.write_string(line, at, cell[:_LONGEST_CELL], text)
                elif cell is None:  # the judge gave no verdict
                    sheet.write_blank(line, at, None, text)
                else:
                    sheet.write_number(line, at, cell, number if column.decimals else text)
            if column.good is not None:
                sheet.conditional_format(1, at, last, at, _colours(column.good == "high"))
        sheet.freeze_panes(1, 1)
        sheet.autofilter(0, 0, last, len(_COLUMNS) - 1)
        _write_summary(book, record, bold)


def _write_summary(book: xlsxwriter.Workbook, record: dict[str, Any], bold: Any) -> None:
    sheet = book.add_worksheet("Summary")
    sheet.set_column(0, 0, 24)
    sheet.set_column(1, 9, 11)
    line = 0
    for sentence in record["verdict"]:
        sheet.write_string(line, 0, sentence)
        line += 1
    table = score_table(record["scores"], record["judge"])
    if table.note is not None:
        sheet.write_string(line, 0, table.note)
        line += 1
    heads = ["", "Base", "from", "to", "Tuned", "from", "to", "Difference", "from", "to", "p"]
    line += 1
    for column, head in enumerate(heads):
        sheet.write_string(line, column, head, bold)
    number = book.add_format({"num_format": "0.000"})
    for title, figures in _figures(record):
        line += 1
        sheet.write_string(line, 0, title)
        for column, figure in enumerate(figures, start=1):
            if figure is not None:
                sheet.write_number(line, column, figure, number)


def _figures(record: dict[str, Any]) -> Iterator[tuple[str, list[float | None]]]:
    """The lines of the summary: a title, and base, tuned and difference, each with its interval, and p. None: not
    shown.
    """
    scores, parts = record["scores"], ("mean", "low", "high")
    for name, title in (SCORES | {"loss": LOSS}).items():
        score = scores[name]
        figures = [score[side][part] for side in ("base", "tuned", "difference") for part in parts]
        yield title.format(judge=record["judge"]), _sure([*figures, score["p_value"]], score)
    loss = scores["loss"]
    yield PERPLEXITY, _sure([perplexity(loss, side, part) for side in ("base", "tuned") for part in parts], loss)


def _sure(figures: list[float], score: dict[str, Any]) -> list[float | None]:
    """Of too few questions the means alone: every third figure, and not p."""
    return [None if is_too_few(score) and (at % 3 or at == 9) else figure for at, figure in enumerate(figures)]


def _mark(side: dict[str, Any]) -> str:
    return "empty" if not side["answer"] else "repeats itself" if side["in_circles"] else ""


def _colours(high_is_good: bool) -> dict[str, str]:
    bad, middle, good = "#F4B6A6", "#FBF3D9", "#B7DEC8"
    low, high = (bad, good) if high_is_good else (good, bad)
    return {"type": "3_color_scale", "min_color": low, "mid_color": middle, "max_color": high}


def _draw(record: dict[str, Any]) -> bytes:
    figure = Figure(figsize=(12, 4.6), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    _draw_scores(left, record)
    _draw_losses(right, record)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def _draw_scores(axes: Axes, record: dict[str, Any]) -> None:
    names = list(SCORES)
    for line, name in enumerate(names):
        for side, colour, shift in (("base", _BASE, 0.2), ("tuned", _TUNED, -0.2)):
            score = record["scores"][name][side]
            width, place = score["mean"], len(names) - 1 - line + shift
            axes.barh(place, width, 0.36, color=colour, label=f"{side} model" if line == 0 else None)
            end = width
            if not is_too_few(record["scores"][name]):
                axes.hlines(place, score["low"], score["high"], color=_INK, linewidth=1.2)
                end = max(width, score["high"])
            axes.text(end + 0.015, place, f"{width:.0%}", va="center", fontsize=10, color=_INK)
    sure = not is_too_few(record["scores"]["f1"])
    lines = "thin line: 95 % interval" if sure else "too few questions for intervals"
    axes.set_xlabel(lines, loc="right", fontsize=10, color=_QUIET)
    axes.set_yticks(
        range(len(names)), [SCORES[name].format(judge=record["judge"]) for name in reversed(names)], fontsize=11
    )
    axes.set_xlim(0, 1.12)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"], fontsize=10)
    # A sheet may be called "prices in $ and in $.xlsx": that is no formula.
    axes.set_title(f"{record['count']} questions {_asked(record)}", fontsize=13, loc="left", parse_math=False)
    axes.legend(frameon=False, fontsize=10, loc="upper left", bbox_to_anchor=(0, -0.08), ncols=2)
    _quiet(axes, "x")


def _draw_losses(axes: Axes, record: dict[str, Any]) -> None:
    pairs = sorted(record["pairs"], key=lambda pair: pair["base"]["loss"])
    places = range(len(pairs))
    base, tuned = ([pair[side]["loss"] for pair in pairs] for side in ("base", "tuned"))
    axes.vlines(places, tuned, base, color=_GRID, linewidth=1.5, zorder=1)
    axes.scatter(places, base, s=14, color=_BASE, zorder=2)
    axes.scatter(places, tuned, s=14, color=_TUNED, zorder=3)
    means = record["scores"]["loss"]
    axes.set_title(
        f"Loss of each expected answer: {means['base']['mean']:.2f} to {means['tuned']['mean']:.2f}",
        fontsize=13,
        loc="left",
    )
    axes.set_ylabel("nats per token (lower is better)", fontsize=11)
    axes.set_ylim(bottom=0)
    axes.set_xticks([])
    axes.set_xlabel("one line a question", fontsize=11)
    _quiet(axes, "y")


def _asked(record: dict[str, Any]) -> str:
    questions = record["questions"]
    if questions == "held out in training":
        return str(questions)
    name = "".join(letter if letter.isprintable() else "\ufffd" for letter in str(questions))
    return "of " + (name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…")


def _quiet(axes: Axes, lines: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_GRID)
    axes.tick_params(colors=_QUIET, length=0)
    axes.grid(axis=lines, color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
