"""A sheet's pairs and findings -> a workbook of its own: what training would use, and what was found and done.

Pairs      Row | Question | Answer              every pair as text, cleaned, in the order of the sheet
Findings   Row | Finding | What was done        everything else that `check` said

The sheet it comes from is not touched. Training on the workbook is training on that sheet.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import xlsxwriter

from phinetune.errors import RunError
from phinetune.run_folder import atomic_file
from phinetune.sheet.findings import CODES_OF_SKIPPED
from phinetune.sheet.pairs import PairTable

PAIRS, FINDINGS = "Pairs", "Findings"
_LONGEST_CELL = 32_767  # characters, Excel's own limit
_MOST_ROWS = 1_048_575  # below the header, Excel's own limit
_WIDTHS = {"Sheet": 16, "Row": 8, "Question": 50, "Answer": 80, "Finding": 80, "What was done": 40}

_LEFT_OUT = "left out"
_KEPT = "kept as it is"
_DONE = {
    "empty_rows": _LEFT_OUT,
    "rows_above_header": _LEFT_OUT,
    "duplicate_pairs": "kept: it counts again",
    "duplicate_questions": "kept: it counts again",
    "near_duplicates": "kept: it counts again",
    "conflicting_answers": "kept: decide on one answer",
    "mojibake": "kept: correct it by hand",
    "html": "kept: take it out by hand",
    "answer_is_question": "kept: write an answer or remove the row",
    "personal_data": "kept: take it out if it is not for everybody",
    "answers_cut": "kept whole: training cuts it",
    "questions_too_long": "kept: shorten it, training refuses it",
}


class Finding(NamedTuple):
    """One line of the account; `row` and `sheet` are None for what is said of the file."""

    sheet: str | None
    row: int | None
    code: str
    text: str
    done: str


def list_findings(table: PairTable) -> list[Finding]:
    """Everything found, by row: first what is said of the file, then row by row in the order of the sheet."""
    of_file = [
        Finding(None, None, warning.code, warning.message, _DONE.get(warning.code, ""))
        for warning in table.warnings
        if not warning.notes and warning.code not in CODES_OF_SKIPPED.values()
    ]
    of_rows = [
        Finding(note.sheet, note.row, warning.code, note.text, _DONE.get(warning.code, _KEPT))
        for warning in table.warnings
        for note in warning.notes
    ]
    of_rows += [
        Finding(skipped.sheet, skipped.row, CODES_OF_SKIPPED[skipped.trouble], str(skipped.reason), _LEFT_OUT)
        for skipped in table.skipped
    ]
    sheets = {name: place for place, name in enumerate(table.sheet if isinstance(table.sheet, list) else [])}
    return of_file + sorted(of_rows, key=lambda found: (sheets.get(found.sheet or "", 0), found.row or 0))


def check_place(path: Path, sheet: Path) -> None:
    """Raises RunError for a file that is there already, or is no .xlsx file."""
    if path.suffix.lower() != ".xlsx":
        raise RunError(f"A cleaned workbook cannot be written to {path.name}.", "Name a file that ends in .xlsx.")
    if path.exists():
        its = "the sheet itself" if sheet.exists() and path.samefile(sheet) else "there already"
        raise RunError(f"{path} is {its}, and is not replaced.", "Name a new file after --fix, or remove this one.")


def write_cleaned(path: Path, table: PairTable) -> None:
    """Write the pairs and the findings of `table` to a new workbook at `path`, every cell as text.

    Raises RunError when the file is there already, the pairs are too many for a sheet, or the disk is full.
    """
    check_place(path, path)
    if len(table.pairs) > _MOST_ROWS:
        raise RunError(f"A sheet holds {_MOST_ROWS:,} rows, and there are {len(table.pairs):,} pairs.", "Divide them.")
    several = isinstance(table.sheet, list)
    found = list_findings(table)
    for pair in table.pairs:
        for text in (pair.question, pair.answer):
            if len(text) > _LONGEST_CELL:
                cut = f"{len(text):,} characters, more than a cell of a workbook holds"
                found.append(Finding(pair.sheet, pair.row, "cell_limit", cut, f"cut at {_LONGEST_CELL:,} characters"))
    pairs = [(pair.sheet, pair.row, pair.question, pair.answer) for pair in table.pairs]
    lines = [(line.sheet, line.row, line.text, line.done) for line in found[:_MOST_ROWS]]
    with atomic_file(path) as temporary, xlsxwriter.Workbook(temporary) as book:
        _write_sheet(book, PAIRS, ("Sheet", "Row", "Question", "Answer")[not several :], pairs, several)
        _write_sheet(book, FINDINGS, ("Sheet", "Row", "Finding", "What was done")[not several :], lines, several)


def _write_sheet(
    book: xlsxwriter.Workbook,
    name: str,
    columns: Sequence[str],
    rows: Sequence[tuple[str | None, int | None, str, str]],
    several: bool,
) -> None:
    sheet = book.add_worksheet(name)
    bold, text = book.add_format({"bold": True}), book.add_format({"text_wrap": True, "valign": "top"})
    for column, title in enumerate(columns):
        sheet.write_string(0, column, title, bold)
        sheet.set_column(column, column, _WIDTHS[title])
    for place, row in enumerate(rows, start=1):
        for column, cell in enumerate(row[not several :]):
            if isinstance(cell, int):
                sheet.write_number(place, column, cell, text)
            elif cell:
                # write_string makes neither a formula nor a link of what begins like one.
                sheet.write_string(place, column, cell[:_LONGEST_CELL], text)
    sheet.freeze_panes(1, 0)
