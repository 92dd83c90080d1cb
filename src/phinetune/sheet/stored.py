"""What the cells of a workbook hold besides texts, for a copy that keeps it: numbers, days, times and truth values.

    0.15, shown as "15 %"  ->  Stored(0.15, r"0\\ %")        2024-03-12  ->  Stored(45363.0, "yyyy-mm-dd")

From .xls and .xlsb the reader gives numbers without their format: these are shown as they are stored.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from phinetune.sheet.apart import rows_apart
from phinetune.sheet.number_formats import show
from phinetune.sheet.questions import QuestionTable
from phinetune.sheet.read import is_workbook
from phinetune.sheet.table import as_text

_GENERAL = "General"
_ELEVEN_DIGITS = 10**11  # from here on General shows 1.2E+11
_SHOWN = re.compile(r"(?P<before>\D{0,20}?)(?P<number>\d(?:[\d.,'’\s]*\d)?)(?P<after>\D{0,20})")


class Stored(NamedTuple):
    """A number, or the days since 1899-12-30, and the format that shows it. A truth value has none."""

    value: float
    format: str


def stored_cells(data: bytes, table: QuestionTable) -> dict[tuple[int, int], Stored]:
    """What is no text in `table.rows`, by row and column from 0; nothing where the file is no workbook.

    Raises SheetError as `rows_apart`.
    """
    if not is_workbook(data):
        return {}
    parts = [part for part in rows_apart("values", data, table.file) if part.name == table.sheet]
    rows = {number: cells for part in parts for number, cells in part.rows}
    found = {}
    for row, (number, texts) in enumerate(zip(table.numbers, table.rows, strict=True)):
        for column, (value, text) in enumerate(zip(rows.get(number, ()), texts, strict=False)):
            if isinstance(value, list):  # a day or a time comes with its format
                found[row, column] = Stored(*value)
            elif not isinstance(value, str) and math.isfinite(value):
                found[row, column] = Stored(value, _format_of(value, text))
    return found


def _format_of(value: float, shown: str) -> str:
    """The format in which a sheet shows the number like this; without one that is known, General.

    1234.5, "1.234,50 €"  ->  r"#,##0.00\\ \\€"
    """
    found = _SHOWN.fullmatch(shown.replace("−", "-"))
    if isinstance(value, bool) or not found or (shown == as_text(value) and abs(value) < _ELEVEN_DIGITS):
        return _GENERAL
    before, number, after = found.groups()
    if value < 0 and "-" not in before:
        return _GENERAL
    if value < 0:
        before = before.replace("-", "", 1)
    percent = "%" * (before + after).count("%")
    digits = _digits(number)
    for decimals in reversed(range(len(digits))):
        part = "." + "0" * decimals if decimals else ""
        whole = "0" * (len(digits) - decimals)
        if _digits(show(abs(value), whole + part + percent) or "") == digits:
            if len(number) - len(digits) > bool(decimals):  # thousands stand apart
                whole = "#,##0"
            elif digits[0] != "0":
                whole = "0"
            return _literal(before) + whole + part + _literal(after)
    return _GENERAL


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)


def _literal(text: str) -> str:
    return re.sub(r"[^%]", r"\\\g<0>", text)
