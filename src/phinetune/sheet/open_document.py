"""How an .ods file shows its numbers and dates: beside every value stands the text that a person sees.

    <table:table-cell office:value-type="percentage" office:value="0.15"><text:p>15 %</text:p></table:table-cell>
        ->  {(3, 2): Formatted(0.15, "15 %")}

The workbook reader gives the value alone. Where what is told here cannot be read, values stay as they are stored.
"""

from __future__ import annotations

from contextlib import suppress
from xml.parsers import expat
from zipfile import ZipFile

from phinetune.sheet.number_formats import Formatted
from phinetune.sheet.workbook_xml import CellFaults, xml_parser

_CONTENT = "content.xml"
_NUMBERS = {"float", "percentage", "currency"}
_LONGEST = 200  # characters of a number; a longer text is something else
# Rows or cells that are written down once, and cells in all: a file of a few bytes may claim a million times a million.
_MOST_REPEATED, _MOST_CELLS = 100, 1_000_000


def find_shown(archive: ZipFile) -> dict[str, CellFaults]:
    """What numbers and dates look like, by sheet name and (row, column), both from 1."""
    parser = _ContentParser()
    with suppress(expat.ExpatError, ValueError, KeyError):  # of a damaged file the reader will tell
        parser.parse(archive.read(_CONTENT))
    return parser.sheets


class _ContentParser:
    """Collects the shown texts while the XML streams by."""

    def __init__(self) -> None:
        self.sheets: dict[str, CellFaults] = {}
        self.faults: CellFaults = {}
        self.tables = self.aside = 0  # how deep within tables, and within notes or drawings of a cell
        self.row = self.column = 0
        self.rows = self.cells = 1  # how often the present ones are repeated
        self.of_row: CellFaults = {}
        self.stored: float | str | None = None
        self.text: list[str] = []
        self.in_text = False

    def parse(self, xml: bytes) -> None:
        parser = xml_parser()
        parser.StartElementHandler = self.start
        parser.EndElementHandler = self.end
        parser.CharacterDataHandler = self.take
        parser.Parse(xml, True)

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name in ("office:annotation", "draw:frame", "table:shapes"):
            self.aside += 1
        elif name == "table:table":
            self.tables += 1
            if self.tables == 1:
                self.row = 0
                self.faults = self.sheets.setdefault(attributes.get("table:name", ""), {})
        elif self.aside or self.tables != 1:  # a table within a cell is not ours
            return
        elif name == "table:table-row":
            self.column, self.of_row = 0, {}
            self.rows = int(attributes.get("table:number-rows-repeated", 1))
        elif name in ("table:table-cell", "table:covered-table-cell"):
            self.cells = int(attributes.get("table:number-columns-repeated", 1))
            self.stored, self.text = _stored(attributes), []
        elif name == "text:p":
            self.in_text = True

    def take(self, text: str) -> None:
        if self.in_text and not self.aside and self.stored is not None:
            self.text.append(text)

    def end(self, name: str) -> None:
        if name in ("office:annotation", "draw:frame", "table:shapes"):
            self.aside -= 1
        elif name == "table:table":
            self.tables -= 1
        elif self.aside or self.tables != 1:
            return
        elif name == "text:p":
            self.in_text = False
        elif name in ("table:table-cell", "table:covered-table-cell"):
            self.end_cell()
        elif name == "table:table-row":
            for repeat in range(self.rows if self.rows <= _MOST_REPEATED else 0):
                self.faults.update(
                    {(self.row + 1 + repeat, column): found for (_, column), found in self.of_row.items()}
                )
            self.row += self.rows
            if len(self.faults) > _MOST_CELLS:
                raise ValueError("more numbers than any list of answers")

    def end_cell(self) -> None:
        shown = "".join(self.text).strip()
        # A number too wide for its column is shown as ###.
        if self.stored is not None and 0 < len(shown) <= _LONGEST and shown.strip("#"):
            most = _MOST_REPEATED if len(self.of_row) < _MOST_REPEATED**2 else 0
            for repeat in range(self.cells if self.cells <= most else 0):
                self.of_row[0, self.column + 1 + repeat] = Formatted(self.stored, shown)
        self.column += self.cells
        self.stored = None


def _stored(attributes: dict[str, str]) -> float | str | None:
    """The number, or the day as ISO has it; None for what has no other look than its text."""
    kind = attributes.get("office:value-type")
    if kind in _NUMBERS:
        return float(attributes["office:value"])
    return attributes["office:date-value"] if kind == "date" else None
