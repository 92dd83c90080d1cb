"""Base and tuned model side by side: comparison.json -> a workbook to read and a picture to look at.

comparison.json  ─►  comparison.xlsx   every question with both answers, worst first, coloured by score
                 ─►  comparison.png    the scores of both with their 95 % intervals | the loss of every question
"""

from __future__ import annotations

import io
import json
from typing import Any

import xlsxwriter
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from phinetune.errors import RunError
from phinetune.run_folder import RunFolder, atomic_file, write_bytes, write_json

_BASE, _TUNED, _INK, _QUIET, _GRID = "#8a8a8a", "#0072B2", "#222222", "#6b6b6b", "#e4e4e4"
_SCORES = {
    "right": "right (by {judge})",
    "exact": "word for word",
    "f1": "shared words (F1)",
    "rouge_l": "same order (ROUGE-L)",
    "chrf": "shared letters (chrF)",
}
_LONGEST_NAME = 40  # letters of a file in a title
_LONGEST_CELL = 32_767  # characters, Excel's own limit
_COLUMNS = (
    ("Question", 40), ("Expected", 45), ("Base model", 45), ("Tuned model", 45), ("Right", 8), ("F1", 8),
    ("ROUGE-L", 9), ("chrF", 8), ("Loss", 8), ("F1, base", 9), ("Loss, base", 10), ("Ended", 14), ("Row", 7),
)  # fmt: skip


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
        sheet = book.add_worksheet("Answers")
        for column, (title, width) in enumerate(_COLUMNS):
            sheet.write_string(0, column, title, bold)
            sheet.set_column(column, column, width)
        for line, pair in enumerate(record["pairs"], start=1):
            base, tuned = pair["base"], pair["tuned"]
            cells = [
                pair["question"], pair["expected"], base["answer"], tuned["answer"], tuned["right"], tuned["f1"],
                tuned["rouge_l"], tuned["chrf"], tuned["loss"], base["f1"], base["loss"], tuned["end"], pair["row"],
            ]  # fmt: skip
            for column, cell in enumerate(cells):
                if isinstance(cell, str):  # as text and nothing else: no cell becomes a formula
                    sheet.write_string(line, column, cell[:_LONGEST_CELL], text)
                elif cell is None:  # the judge gave no verdict
                    sheet.write_blank(line, column, None, text)
                else:
                    sheet.write_number(line, column, cell, text if column in (4, 12) else number)
        last = len(record["pairs"])
        for columns, best in (((4, 5, 6, 7, 9), "max"), ((8, 10), "min")):
            for column in columns:
                sheet.conditional_format(1, column, last, column, _colours(best == "max"))
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
    heads = ["", "Base", "from", "to", "Tuned", "from", "to", "Difference", "from", "to", "p"]
    line += 1
    for column, head in enumerate(heads):
        sheet.write_string(line, column, head, bold)
    number = book.add_format({"num_format": "0.000"})
    for name, contrast in record["scores"].items():
        line += 1
        sheet.write_string(line, 0, _SCORES.get(name, "loss (nats per token)").format(judge=record["judge"]))
        figures = [contrast[side][part] for side in ("base", "tuned", "difference") for part in ("mean", "low", "high")]
        for column, figure in enumerate([*figures, contrast["p_value"]], start=1):
            sheet.write_number(line, column, figure, number)


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
    names = list(_SCORES)
    for line, name in enumerate(names):
        for side, colour, shift in (("base", _BASE, 0.2), ("tuned", _TUNED, -0.2)):
            score = record["scores"][name][side]
            width, place = score["mean"], len(names) - 1 - line + shift
            axes.barh(place, width, 0.36, color=colour, label=f"{side} model" if line == 0 else None)
            axes.hlines(place, score["low"], score["high"], color=_INK, linewidth=1.2)
            axes.text(max(width, score["high"]) + 0.015, place, f"{width:.0%}", va="center", fontsize=10, color=_INK)
    axes.set_yticks(
        range(len(names)), [_SCORES[name].format(judge=record["judge"]) for name in reversed(names)], fontsize=11
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
