"""What the workbook reader leaves out of an .xlsx file: error cells, formulas never calculated, how numbers are shown.

    <c r="B5" t="e"><v>#N/A</v></c>      ->  {(5, 2): ErrorCell("#N/A")}
    <c r="B6"><f>C6&amp;D6</f><v/></c>   ->  {(6, 2): UnstoredFormula()}
    <c r="B7" s="3"><v>0.15</v></c>      ->  {(7, 2): Formatted(0.15, "15%")}     if style 3 is a percent

The first two reach us from the reader as empty cells, and a person would look for them in vain.
"""

from __future__ import annotations

import posixpath
import re
from contextlib import suppress
from xml.parsers import expat
from zipfile import ZipFile

from phinetune.errors import SheetError
from phinetune.sheet.header import letter
from phinetune.sheet.limits import too_large
from phinetune.sheet.number_formats import Formatted, format_code, show
from phinetune.sheet.table import ErrorCell, UnstoredFormula

CellFaults = dict[tuple[int, int], ErrorCell | UnstoredFormula | Formatted]
Formats = dict[str, str]  # by the number of a style

# The reader holds every cell of the rectangle up to the last one, 32 bytes each, and a single stray cell
# at XFD20000 makes it ask for 10 GB and end the whole process.
_MAX_CELLS = 20_000_000

_LAST_ROW, _LAST_COLUMN = 1_048_576, 16_384

_MAX_SHEETS = 1_000
_MAX_TAGS = 16_000_000  # a full sheet of three columns; 5 s to look through
_STRETCH = 4 << 20  # bytes looked at together: all references of a full sheet at once would take half a gigabyte
_LONGEST_REFERENCE = 16
_STYLES, _MAX_STYLES = "xl/styles.xml", 4 << 20  # bytes; of a workbook that grew for years it is one million

_REFERENCE = re.compile(rb""" r=["']([A-Z]{1,3})([0-9]{1,7})["']""")
_WORTH_PARSING = re.compile(rb""" t=["']e["']|<(?:\w+:)?f[ />]""")
_STYLE = re.compile(rb""" s=["']([0-9]{1,6})["']""")


def find_faults(archive: ZipFile, file: str) -> dict[str, CellFaults]:
    """The faults of every worksheet, by sheet name and (row, column), both from 1.

    Raises SheetError for a sheet too large to hold, expat.ExpatError and the errors of zipfile for a damaged one.
    """
    of_part: dict[str, CellFaults] = {}
    sheets = worksheets(archive)
    if len(sheets) > _MAX_SHEETS:
        raise too_large(file, f"it has {len(sheets):,} sheets")
    formats = _formats(archive)
    for name, part in sheets.items():
        if part not in of_part:
            of_part[part] = _faults_in(unpack(archive, part), name, file, formats)
    return {name: of_part[part] for name, part in sheets.items() if of_part[part]}


def unpack(archive: ZipFile, part: str) -> bytes:
    """The bytes that the archive announces for a part and no more: without a number zipfile unpacks all there is."""
    with archive.open(part) as stream:
        return stream.read(archive.getinfo(part).file_size)


def _faults_in(xml: bytes, sheet: str, file: str, formats: Formats) -> CellFaults:
    _refuse_huge(xml, sheet, file)
    styles = {style.encode() for style in formats}
    if _WORTH_PARSING.search(xml) or (styles and any(style[1] in styles for style in _STYLE.finditer(xml))):
        return _SheetParser(formats).parse(xml)
    return {}


def _formats(archive: ZipFile) -> Formats:
    """The styles with a format that changes how a number looks; none where styles are missing, damaged or endless."""
    if _STYLES not in archive.namelist() or archive.getinfo(_STYLES).file_size > _MAX_STYLES:
        return {}
    try:
        return _StylesParser().parse(unpack(archive, _STYLES))
    except (expat.ExpatError, ValueError):
        return {}


def worksheets(archive: ZipFile) -> dict[str, str]:
    parts = set(archive.namelist())
    targets = {
        relation["Id"]: posixpath.normpath(posixpath.join("/xl", relation["Target"])).lstrip("/")
        for relation in _elements(unpack(archive, "xl/_rels/workbook.xml.rels"), "Relationship")
        if "Id" in relation and "Target" in relation
    }
    sheets = {
        sheet["name"]: targets.get(next((sheet[key] for key in sheet if key.endswith(":id")), ""), "")
        for sheet in _elements(unpack(archive, "xl/workbook.xml"), "sheet")
        if "name" in sheet
    }
    return {name: part for name, part in sheets.items() if part in parts}


def _elements(xml: bytes, wanted: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if _local(name) == wanted:
            found.append(attributes)

    parser = xml_parser()
    parser.StartElementHandler = start
    parser.Parse(xml, True)
    return found


def _refuse_huge(xml: bytes, sheet: str, file: str) -> None:
    last_row = last_column = 0
    for start in range(0, len(xml), _STRETCH):
        references = set(_REFERENCE.findall(xml, start, start + _STRETCH + _LONGEST_REFERENCE))
        last_row = max([last_row, *(int(row) for row in {row for _, row in references})])
        last_column = max([last_column, *(column_number(name.decode()) for name in {name for name, _ in references})])
    if last_row * last_column > _MAX_CELLS:
        raise SheetError(
            f'{file}, sheet "{sheet}": its last cell is in column {letter(last_column - 1)}, row {last_row}; '
            "that is more than can be read.",
            "Delete stray cells far right of or far below the questions and answers, save it and try again.",
        )
    if xml.count(b"<") > _MAX_TAGS:
        raise too_large(file, f'the sheet "{sheet}" has more cells than any list of questions')


class _SheetParser:
    """Collects the faults of one worksheet while its XML streams by."""

    def __init__(self, formats: Formats) -> None:
        self.formats = formats
        self.faults: CellFaults = {}
        self.zeros: list[tuple[int, int]] = []
        self.any_calculated = False
        self.row = self.column = 0
        self.kind = self.style = ""
        self.has_formula = False
        self.value: str | None = None
        self.in_value = False

    def parse(self, xml: bytes) -> CellFaults:
        parser = xml_parser()
        parser.StartElementHandler = self.start
        parser.EndElementHandler = self.end
        parser.CharacterDataHandler = self.text
        parser.Parse(xml, True)
        # A program that writes formulas without calculating them may store 0 as the result of every one.
        if not self.any_calculated:
            self.faults.update(dict.fromkeys(self.zeros, UnstoredFormula()))
        return self.faults

    def start(self, name: str, attributes: dict[str, str]) -> None:
        match _local(name):
            case "row":
                self.row = int(attributes.get("r", self.row + 1))
                self.column = 0
            case "c":
                letters = attributes.get("r", "").rstrip("0123456789")
                self.column = column_number(letters) if letters else self.column + 1
                if self.row > _LAST_ROW or self.column > _LAST_COLUMN:
                    raise expat.ExpatError("a cell beyond the sheet")
                self.kind, self.style = attributes.get("t", "n"), attributes.get("s", "")
                self.has_formula, self.value = False, None
            case "f":
                self.has_formula = True
            case "v":
                self.in_value, self.value = True, ""

    def text(self, text: str) -> None:
        if self.in_value:
            self.value = (self.value or "") + text

    def end(self, name: str) -> None:
        match _local(name):
            case "v":
                self.in_value = False
            case "c":
                self.judge()

    def judge(self) -> None:
        place = (self.row, self.column)
        if self.kind == "e":
            self.faults[place] = ErrorCell(self.value or "#N/A")
            return
        if self.kind == "n" and self.value and self.style in self.formats:
            self.note_format(place, self.value, self.formats[self.style])
        if not self.has_formula:
            return
        # The stored result of a formula may well be the empty text; only t="str" says so.
        if self.value is None or (not self.value and self.kind != "str"):
            self.faults[place] = UnstoredFormula()
        elif self.value == "0" and self.kind == "n":
            self.zeros.append(place)
        else:
            self.any_calculated = True

    def note_format(self, place: tuple[int, int], value: str, code: str) -> None:
        with suppress(ValueError):  # what is no number, the reader refuses
            self.faults[place] = Formatted(float(value), show(float(value), code))


class _StylesParser:
    """Collects the formats of the styles that cells have (not those of conditions or of named styles)."""

    def __init__(self) -> None:
        self.custom: dict[int, str] = {}
        self.numbers: list[int] = []
        self.inside = False

    def parse(self, xml: bytes) -> Formats:
        parser = xml_parser()
        parser.StartElementHandler = self.start
        parser.EndElementHandler = self.end
        parser.Parse(xml, True)
        codes = (format_code(number, self.custom.get(number)) for number in self.numbers)
        return {str(style): code for style, code in enumerate(codes) if code is not None}

    def start(self, name: str, attributes: dict[str, str]) -> None:
        match _local(name):
            case "numFmt":
                self.custom.setdefault(int(attributes.get("numFmtId", 0)), attributes.get("formatCode", "General"))
            case "cellXfs":
                self.inside = True
            case "xf" if self.inside:
                self.numbers.append(int(attributes.get("numFmtId", 0)))

    def end(self, name: str) -> None:
        if _local(name) == "cellXfs":
            self.inside = False


def xml_parser() -> expat.XMLParserType:
    """For parts of a workbook, which may come from anybody."""
    parser = expat.ParserCreate()
    parser.buffer_text = True
    # Spreadsheets declare no document type; one that does means to make entities explode.
    parser.StartDoctypeDeclHandler = _refuse_doctype
    return parser


def _refuse_doctype(*_: object) -> None:
    raise expat.ExpatError("document type declaration")


def _local(name: str) -> str:
    return name.rpartition(":")[2]


def column_number(letters: str) -> int:
    number = 0
    for sign in letters:
        number = 26 * number + ord(sign) - ord("A") + 1
    return number
