"""Questions with their answers -> a workbook or a .csv file: every column that was there, and one with the answers."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import xlsxwriter

from phinetune.errors import RunError
from phinetune.run_folder import atomic_file

NEW_COLUMN = "Answer"
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # the wide ones in East Asia
# A number, a telephone number or a stroke for "none": nothing in it refers to a cell, a function or a program.
_HARMLESS = re.compile(r"[+-][\d .,:/()+-]*([eE][+-]?\d+)?[ %€$£]*")
_LONGEST_CELL = 32_767  # characters, Excel's own limit
_MOST_FORMATS = 200  # that Excel takes in a workbook
_WIDTHS = (12, 60)


def write_answers(
    path: Path,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    answers: Sequence[str],
    column: int | None = None,
    stored: Mapping[tuple[int, int], tuple[float, str]] | None = None,
) -> str:
    """Write the table to `path`, .xlsx or .csv; the name of the answers' column is returned.

    The answers go into `column`, or a new one at the end. Cells are text and none becomes a formula; in .xlsx, those
    in `stored`, by their place in `rows`, hold a number or truth value in that format.
    Raises RunError for another ending or a full disk.
    """
    check_ending(path)
    name = answer_column_name(columns, column)
    place = slice(len(columns), None) if column is None else slice(column, column + 1)
    table = [list(row) for row in (columns, *rows)]
    for row, text in zip(table, (name, *answers), strict=True):
        row[place] = [text]
    with atomic_file(path) as temporary:
        if path.suffix.lower() == ".csv":
            with temporary.open("w", encoding="utf-8-sig", newline="") as file:
                csv.writer(file).writerows([_defused(cell) for cell in row] for row in table)
        else:
            _write_workbook(temporary, table, stored or {})
    return name


def check_ending(path: Path) -> None:
    """Raises RunError for a file that is neither .xlsx nor .csv."""
    if path.suffix.lower() not in (".xlsx", ".csv"):
        raise RunError(f"Answers cannot be written to {path.name}.", "Name a file that ends in .xlsx or .csv.")


def answer_column_name(columns: Sequence[str], column: int | None = None) -> str:
    """What the column with the answers is called: as it is already, or a name that no other has."""
    if column is not None:
        return columns[column]
    taken = {column.casefold() for column in columns}
    names = (
        NEW_COLUMN,
        f"{NEW_COLUMN} (model)",
        *(f"{NEW_COLUMN} ({number})" for number in range(2, len(columns) + 3)),
    )
    return next(name for name in names if name.casefold() not in taken)


def _write_workbook(
    path: Path, table: Sequence[Sequence[str]], stored: Mapping[tuple[int, int], tuple[float, str]]
) -> None:
    with xlsxwriter.Workbook(path) as book:
        sheet = book.add_worksheet("Answers")
        bold, text = book.add_format({"bold": True}), book.add_format({"text_wrap": True, "valign": "top"})
        codes = islice(dict.fromkeys(code for _, code in stored.values()), _MOST_FORMATS)
        formats = {code: book.add_format({"num_format": code, "valign": "top"}) for code in codes}
        for row, cells in enumerate(table):
            for column, cell in enumerate(cells):
                if (row - 1, column) in stored:
                    value, code = stored[row - 1, column]
                    write = sheet.write_boolean if isinstance(value, bool) else sheet.write_number
                    write(row, column, value, formats.get(code))
                else:
                    sheet.write_string(row, column, cell[:_LONGEST_CELL], bold if row == 0 else text)
        for column in range(len(table[0])):
            longest = max(len(cells[column]) for cells in table)
            sheet.set_column(column, column, min(max(longest, _WIDTHS[0]), _WIDTHS[1]))
        sheet.freeze_panes(1, 0)


def _defused(cell: str) -> str:
    """Spreadsheet programs compute what begins like a formula; behind an apostrophe it is text."""
    risky = cell.startswith(_FORMULA_STARTS) and not _HARMLESS.fullmatch(cell)
    return f"'{cell}" if risky else cell
