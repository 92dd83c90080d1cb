"""What every reader hands on: tables of cells that remember the row they stand in.

    Table("FAQ", rows=(Row(4, ("Question", "Answer")), Row(6, ("Who?", ErrorCell("#N/A")))))

Row numbers are the ones a person sees: Excel's row, the spreadsheet row of a CSV record, the line of a .jsonl file,
the place in a .json list. Empty rows are left out; the gap in the numbers tells of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from phinetune.sheet.clean import clean


@dataclass(frozen=True, slots=True)
class ErrorCell:
    """A cell that shows an error value such as #N/A."""

    text: str


@dataclass(frozen=True, slots=True)
class UnstoredFormula:
    """A formula that was written by a program and never calculated."""


class OwnFormat(str):
    """A number or date as it is stored; the sheet shows it in a format that is not followed here."""

    __slots__ = ()


class UnknownFormat(str):
    """A number as it is stored, of a file of which we cannot tell how it shows it."""

    __slots__ = ()


Cell = str | ErrorCell | UnstoredFormula


def shown(cell: Cell) -> str:
    """What a person sees in it."""
    if isinstance(cell, str):
        return cell
    return cell.text if isinstance(cell, ErrorCell) else ""


def clean_text(cell: Cell) -> str:
    """Its text; an error has none."""
    return clean(cell) if isinstance(cell, str) else ""


@dataclass(frozen=True, slots=True)
class Row:
    number: int
    cells: tuple[Cell, ...]

    def cell(self, column: int) -> Cell:
        return self.cells[column] if column < len(self.cells) else ""


@dataclass(frozen=True)
class RowNote:
    """What was found in one row."""

    row: int
    text: str
    sheet: str | None = None


@dataclass(frozen=True)
class SheetWarning:
    """Something a person should know about their file; the file is used all the same.

    `notes` say of each row what was found there, where there is more to say than the message; `sheets` name the sheet
    of each row.
    """

    code: str
    message: str
    rows: tuple[int, ...] = ()
    notes: tuple[RowNote, ...] = ()
    sheets: tuple[str | None, ...] = ()


@dataclass(frozen=True)
class Table:
    """Rows that hold something, and `columns` if the format itself names them (JSON, Parquet) rather than a row."""

    name: str | None
    rows: tuple[Row, ...]
    columns: tuple[str, ...] | None = None
    warnings: tuple[SheetWarning, ...] = ()
    hidden: bool = False
    cut: bool = False
    """Whether there are more rows, which nobody asked for."""


# As Excel writes them to text in English, German, French, Spanish, Portuguese and Italian.
_ERROR_VALUES = frozenset(
    {"#N/A", "#REF!", "#VALUE!", "#NAME?", "#DIV/0!", "#NUM!", "#NULL!", "#SPILL!", "#CALC!", "#GETTING_DATA"}
    | {"#NV", "#BEZUG!", "#WERT!", "#ZAHL!", "#VALEUR!", "#NOM?", "#NOMBRE!", "#RIF!", "#VALORE!", "#NOME?"}
    | {"#N/D", "#¡REF!", "#¡VALOR!", "#¿NOMBRE?", "#¡DIV/0!", "#¡NUM!", "#VALOR!", "#NÚM!"}
)


_LONGEST_WHOLE = 1e21  # written with all digits below, as JavaScript does: account and telephone numbers are


def make_rows(numbered: Iterable[tuple[int, Sequence[object]]]) -> tuple[Row, ...]:
    """Rows of the values, without those that hold nothing."""
    rows = (Row(number, tuple(map(make_cell, values))) for number, values in numbered)
    return tuple(row for row in rows if not is_blank(row))


def is_blank(row: Row) -> bool:
    return not any(_shows(cell) if isinstance(cell, str) else cell for cell in row.cells)


def _shows(text: str) -> bool:
    # What begins with a letter needs no cleaning to be seen.
    return text[:1].isalnum() or bool(clean(text))


def make_cell(value: object) -> Cell:
    """The value as a person reads it in the spreadsheet."""
    if not isinstance(value, str):
        return value if isinstance(value, ErrorCell | UnstoredFormula) else as_text(value)
    if value.startswith("#") and value.strip().upper() in _ERROR_VALUES:
        return ErrorCell(value.strip())
    return value


def as_text(value: object) -> str:
    """3.0 -> "3", True -> "TRUE", no value -> "", a list or record -> JSON."""
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return str(value).upper()
        case float():
            if value.is_integer() and abs(value) < _LONGEST_WHOLE:
                return f"{Decimal(repr(value)):.0f}"
            # Excel stores and shows 15 digits: 0.1 + 0.2 is 0.3 there. Not a number is how tables say "empty".
            return "" if value != value else f"{value:.15g}"
        case list() | tuple() | dict():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return str(value)
