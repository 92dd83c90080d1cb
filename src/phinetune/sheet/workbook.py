"""A spreadsheet's bytes -> its tables, whatever office wrote them: .xlsx, .xlsm, .xls, .xlsb or .ods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from phinetune.sheet.apart import Part, rows_apart
from phinetune.sheet.number_formats import Formatted
from phinetune.sheet.table import OwnFormat, Table, UnknownFormat, UnstoredFormula, as_text, make_rows
from phinetune.sheet.workbook_xml import CellFaults

_DAY = len("2024-03-12")

Numbered = Sequence[tuple[int, Sequence[object]]]


def workbook_tables(
    data: bytes, file: str, faults: Mapping[str, CellFaults], *, tells_formats: bool = True, most: int | None = None
) -> list[Table]:
    """One table per worksheet. `faults` (see workbook_xml, open_document) go where the reader leaves a cell empty or a
    number bare; without `tells_formats` nothing is known of how numbers are shown. `most` rows of each are enough.

    Raises SheetError when the workbook is protected, damaged or too large.
    """
    return [
        Table(
            name=part.name,
            rows=make_rows(
                _with_faults(part.rows, _above(faults.get(part.name or "", {}), part))
                if tells_formats
                else _bare(part.rows)
            ),
            hidden=part.hidden,
            cut=part.cut,
        )
        for part in rows_apart("workbook", data, file, most)
    ]


def _with_faults(rows: Numbered, faults: CellFaults) -> Numbered:
    """A fault may lie in a row, or right of the cells, that the reader left out as empty."""
    if not faults:
        return rows
    cells_of = {number: list(cells) for number, cells in rows}
    for (row, column), fault in faults.items():
        if isinstance(fault, Formatted) and column > len(cells_of.get(row, ())):
            continue  # nothing was read there
        cells = cells_of.setdefault(row, [])
        cells += [""] * (column - len(cells))
        if isinstance(fault, Formatted):
            cells[column - 1] = _as_shown(cells[column - 1], fault)
        elif cells[column - 1] == "" or isinstance(fault, UnstoredFormula):
            cells[column - 1] = fault
    return sorted(cells_of.items())


def _above(faults: CellFaults, part: Part) -> CellFaults:
    """Without those below the rows that were read."""
    if not part.cut:
        return faults
    last = part.rows[-1][0] if part.rows else 0
    return {place: fault for place, fault in faults.items() if place[0] <= last}


def _bare(rows: Numbered) -> Numbered:
    """The numbers marked as ones whose look is not known."""
    return [
        (number, [UnknownFormat(as_text(cell)) if type(cell) in (int, float) else cell for cell in cells])
        for number, cells in rows
    ]


def _as_shown(value: object, fault: Formatted) -> object:
    if fault.shown is not None:
        # Never another cell's number, should the reader count places in another way.
        return fault.shown if _is_same(value, fault.stored) else value
    return OwnFormat(as_text(value))


def _is_same(value: object, stored: float | str) -> bool:
    if isinstance(stored, str):  # a day, perhaps with a time that the reader writes in another way
        return isinstance(value, str) and value[:_DAY] == stored[:_DAY]
    return value == stored
