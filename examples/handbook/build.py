"""Builds the example workbooks from the facts in `facts/*.yaml`.

    python examples/handbook/build.py

    facts/*.yaml  ->  examples/handbook.xlsx        every wording under `ask`, shuffled: the training sheet
                      examples/handbook_test.xlsx   the wording under `held_out`: never trained on

The same facts give the same bytes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import xlsxwriter  # type: ignore[import-untyped]
import yaml

HERE = Path(__file__).resolve().parent
TRAINING = HERE.parent / "handbook.xlsx"
TEST = HERE.parent / "handbook_test.xlsx"
SEED = 1739
CREATED = datetime(2026, 1, 1)

Row = tuple[str, ...]


@dataclass(frozen=True)
class Fact:
    """One thing to know. `fact` is the piece of `answer` that nobody could guess."""

    fact: str
    answer: str
    ask: tuple[str, ...]
    held_out: str


def read_facts(folder: Path = HERE / "facts") -> list[Fact]:
    """All facts, in the order of the files and of the entries in them."""
    facts = []
    for path in sorted(folder.glob("*.yaml")):
        for entry in yaml.safe_load(path.read_text(encoding="utf-8")):
            facts.append(Fact(entry["fact"], entry["answer"], tuple(entry["ask"]), entry["held_out"]))
    return facts


def training_rows(facts: Sequence[Fact]) -> list[Row]:
    """(question, answer), mixed so that the wordings of one fact never stand together.

    Each pass over the facts, in a fresh order, takes one wording of every fact.
    """
    shuffle = random.Random(SEED)
    wordings = {fact: shuffle.sample(fact.ask, len(fact.ask)) for fact in facts}
    rows: list[Row] = []
    while any(wordings.values()):
        order = shuffle.sample(facts, len(facts))
        if rows and order[0].answer == rows[-1][1]:
            order.append(order.pop(0))
        rows += [(wordings[fact].pop(), fact.answer) for fact in order if wordings[fact]]
    return rows


def test_rows(facts: Sequence[Fact]) -> list[Row]:
    """(question, answer, fact), one for each fact."""
    return [(fact.held_out, fact.answer, fact.fact) for fact in facts]


def write_workbook(path: Path, sheet: str, columns: dict[str, int], rows: Sequence[Row]) -> None:
    """One sheet with a header that stays in view; `columns` are the headings and their widths."""
    with xlsxwriter.Workbook(path) as book:
        book.set_properties({"title": f"Larkspindle Observatory: {sheet}", "created": CREATED})
        look = {"font_name": "Calibri", "valign": "top", "text_wrap": True}
        heading = book.add_format({**look, "bold": True, "font_color": "#FFFFFF", "bg_color": "#27406B"})
        plain = book.add_format({**look, "bottom": 4, "bottom_color": "#B8C2D6"})
        page = book.add_worksheet(sheet)
        page.set_row(0, 22)
        page.freeze_panes(1, 0)
        page.autofilter(0, 0, len(rows), len(columns) - 1)
        for column, (name, width) in enumerate(columns.items()):
            page.set_column(column, column, width)
            page.write_string(0, column, name, heading)
        for number, row in enumerate(rows, start=1):
            for column, text in enumerate(row):
                page.write_string(number, column, text, plain)


def main() -> None:
    facts = read_facts()
    write_workbook(TRAINING, "Handbook", {"Question": 62, "Answer": 68}, training_rows(facts))
    write_workbook(TEST, "Held out", {"Question": 62, "Answer": 68, "Fact": 24}, test_rows(facts))


if __name__ == "__main__":
    main()
