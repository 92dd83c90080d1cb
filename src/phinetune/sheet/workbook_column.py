"""A column put into an .xlsx workbook, which stays as it is otherwise: types, formats, colours, formulas, other sheets.

    <row r="2"><c r="A2" …><v>45000</v></c></row>
      ─►  <row r="2"><c r="A2" …><v>45000</v></c><c r="B2" t="inlineStr"><is><t>At nine.</t></is></c></row>

The cells are put between the bytes that are there. No other cell is read into a value and written anew, so none can
change on the way.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.sax.saxutils import escape
from zipfile import ZIP_DEFLATED, ZipFile

from phinetune.sheet.header import letter
from phinetune.sheet.read import DAMAGE
from phinetune.sheet.workbook_xml import column_number, unpack, worksheets, xml_parser

_LAST_COLUMN = 16_383  # of Excel, from 0
_MOST_BYTES = 256 << 20  # of all parts together, unpacked
_LONGEST_CELL = 32_767  # characters, Excel's own limit
_WIDTH = 50  # of a column that has none, in characters
_PLAIN = b"spreadsheetml.sheet.main+xml"  # what the parts call a workbook without macros that is no template
_SPANS = re.compile(rb"""\sspans=["'][^"']*["']""")
_ESCAPE = re.compile(r"_(?=x[0-9a-fA-F]{4}_)|[\x00-\x08\x0b-\x1f]")  # Excel reads _x0041_ as A
_NEVER = re.compile("[\ud800-\udfff\ufffe\uffff]")  # in XML


@dataclass(frozen=True)
class NewColumn:
    """`cells` by row number, from 1, for the column `place`, from 0; they look like those in the column `like`.

    What stands at their places is replaced.
    """

    place: int
    like: int
    cells: Mapping[int, str]


def with_column(data: bytes, sheet: str, new: NewColumn) -> bytes | None:
    """The workbook with the column in that sheet. None where it cannot be put there: a workbook with macros, one that
    is too large or damaged, or a place with a formula.
    """
    if new.place > _LAST_COLUMN:
        return None
    try:
        with ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if len({entry.filename for entry in entries}) < len(entries):
                return None
            if sum(entry.file_size for entry in entries) > _MOST_BYTES:
                return None
            part = worksheets(archive).get(sheet)
            if part is None or _PLAIN not in unpack(archive, "[Content_Types].xml"):
                return None
            changed = _put(unpack(archive, part), new)
            if changed is None:
                return None
            made = io.BytesIO()
            with ZipFile(made, "w", ZIP_DEFLATED) as written:
                for entry in entries:
                    text = changed if entry.filename == part else unpack(archive, entry.filename)
                    written.writestr(entry, text)
            return made.getvalue()
    except DAMAGE:
        return None


def _put(xml: bytes, new: NewColumn) -> bytes | None:
    finder = _Finder(xml, new)
    finder.parse()
    if finder.refused or finder.left:
        return None
    pieces, at = [], 0
    for start, end, text in sorted(finder.edits):
        pieces += [xml[at:start], text]
        at = end
    changed = b"".join([*pieces, xml[at:]])
    xml_parser().Parse(changed, True)  # raises ExpatError, should a strange file have led to a wrong place
    return changed


@dataclass
class _Finder:
    """Finds where in a worksheet the cells go. An edit: where it begins in the bytes, where it ends, the new bytes."""

    xml: bytes
    new: NewColumn
    edits: list[tuple[int, int, bytes]] = field(default_factory=list)
    refused: bool = False
    row: int = 0
    column: int = -1  # of the last cell, from 0
    style: str | None = None
    has_width: bool = False  # the column
    placed: bool = True  # the cell of this row, if there is to be one
    replaced: int | None = None  # where the cell begins that is there already

    def __post_init__(self) -> None:
        self.left = {row for row, text in self.new.cells.items() if text}

    def parse(self) -> None:
        self.parser = xml_parser()
        self.parser.XmlDeclHandler = self.declaration
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.Parse(self.xml, True)

    def declaration(self, _version: str, encoding: str | None, _standalone: int) -> None:
        self.refused |= (encoding or "utf-8").lower() not in ("utf-8", "us-ascii")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        prefix, local = _split(name)
        at = self.parser.CurrentByteIndex
        match local:
            case "dimension":  # may be left out, and would be wrong
                self.edits.append((at, self.after(at), b""))
            case "col" if not self.has_width:
                first, last = int(attributes["min"]) - 1, int(attributes["max"]) - 1
                if first > self.new.place:
                    self.edits.append((at, at, self.width(prefix)))
                self.has_width = last >= self.new.place
            case "sheetData" if not self.has_width:
                self.edits.append((at, at, b"<%scols>%s</%scols>" % (prefix, self.width(prefix), prefix)))
            case "row":
                self.row = int(attributes.get("r", self.row + 1))
                self.column, self.style, self.placed = -1, None, self.row not in self.left
                if not self.placed and (spans := _SPANS.search(self.xml, at, self.after(at))):
                    self.edits.append((*spans.span(), b""))
            case "c":
                letters = attributes.get("r", "").rstrip("0123456789")
                self.column = column_number(letters) - 1 if letters else self.column + 1
                if self.column == self.new.like:
                    self.style = attributes.get("s")
                if self.placed:
                    return
                if self.column == self.new.place:
                    self.replaced, self.style = at, attributes.get("s", self.style)
                elif self.column > self.new.place:
                    self.place(at, at, prefix)
            case "f":
                self.refused |= self.replaced is not None

    def end(self, name: str) -> None:
        prefix, local = _split(name)
        at = self.parser.CurrentByteIndex
        match local:
            case "cols" if not self.has_width:
                self.edits.append((at, at, self.width(prefix)))
                self.has_width = True
            case "c" if self.replaced is not None:
                self.place(self.replaced, self.after(at), prefix)
                self.replaced = None
            case "row" if not self.placed:
                self.place(at, at, prefix)

    def place(self, start: int, end: int, prefix: bytes) -> None:
        text = escape(_storable(self.new.cells[self.row])).encode()
        style = b' s="%d"' % int(self.style) if self.style else b""
        where = f"{letter(self.new.place)}{self.row}".encode()
        self.edits.append((start, end, _CELL % {b"x": prefix, b"where": where, b"style": style, b"text": text}))
        self.placed = True
        self.left.discard(self.row)

    def after(self, at: int) -> int:
        return self.xml.index(b">", at) + 1

    def width(self, prefix: bytes) -> bytes:
        number = self.new.place + 1
        return b'<%scol min="%d" max="%d" width="%d" customWidth="1"/>' % (prefix, number, number, _WIDTH)


_CELL = (
    b'<%(x)sc r="%(where)s"%(style)s t="inlineStr"><%(x)sis>'
    b'<%(x)st xml:space="preserve">%(text)s</%(x)st></%(x)sis></%(x)sc>'
)


def _split(name: str) -> tuple[bytes, str]:
    prefix, colon, local = name.rpartition(":")
    return f"{prefix}{colon}".encode(), local


def _storable(text: str) -> str:
    """As Excel stores it: what XML cannot hold by its number."""
    return _ESCAPE.sub(lambda sign: f"_x{ord(sign[0]):04X}_", _NEVER.sub("\ufffd", text)[:_LONGEST_CELL])
