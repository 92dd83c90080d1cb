"""What a table file holds, for tests that write one and read it."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

from phinetune.sheet.read import read_tables
from phinetune.sheet.table import Cell, Table


def only_table(path: Path) -> Table:
    (table,) = read_tables(path)
    return table


def cells(path: Path) -> list[tuple[Cell, ...]]:
    return [row.cells for row in only_table(path).rows]


def put_sheet(path: Path, cells: str, prologue: str = "", styles: str | None = None) -> None:
    """Replace the only sheet of a workbook by one row of cells, written in its XML, and its styles."""
    with ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    names = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    xml = f'{prologue}<worksheet {names}><sheetData><row r="1">{cells}</row></sheetData></worksheet>'
    replaced = {"xl/worksheets/sheet1.xml": xml} | ({"xl/styles.xml": styles} if styles is not None else {})
    with ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, replaced.get(name, data))
