"""A spreadsheet's bytes -> its tables, whatever office wrote them: .xlsx, .xlsm, .xls, .xlsb or .ods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from phinetune.sheet.apart import rows_apart
from phinetune.sheet.number_formats import Formatted
from phinetune.sheet.table import OwnFormat, Table, UnstoredFormula, as_text, make_rows
from phinetune.sheet.workbook_xml import CellFaults

Numbered = Sequence[tuple[int, Sequence[object]]]


def workbook_tables(data: bytes, file: str, faults: Mapping[str, CellFaults]) -> list[Table]:
    """One table per worksheet. `faults` (see workbook_xml) go where the reader leaves a cell empty or a number bare.

    Raises SheetError when the workbook is protected, damaged or too large.
    """
    return [
        Table(
            name=part.name,
            rows=make_rows(_with_faults(part.rows, faults.get(part.name or "", {}))),
            hidden=part.hidden,
        )
        for part in rows_apart("workbook", data, file)
    ]


def _with_faults(rows: Numbered, faults: CellFaults) -> Numbered:
    """A fault may lie in a row, or right of the cells, that the reader left out as empty."""
    if not faults:
        return rows
    cells_of = {number: list(cells) for number, cells in rows}
    for (row, column), fault in faults.items():
        cells = cells_of.setdefault(row, [])
        cells += [""] * (column - len(cells))
        if isinstance(fault, Formatted):
            cells[column - 1] = _as_shown(cells[column - 1], fault)
        elif cells[column - 1] == "" or isinstance(fault, UnstoredFormula):
            cells[column - 1] = fault
    return sorted(cells_of.items())


def _as_shown(value: object, fault: Formatted) -> object:
    if fault.shown is not None:
        # Never another cell's number, should the reader count places in another way.
        return fault.shown if value == fault.stored else value
    return OwnFormat(as_text(value))
