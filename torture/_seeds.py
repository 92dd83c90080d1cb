"""Small honest files of every kind, to begin from: workbooks, tables, texts."""

from __future__ import annotations

import datetime
import io
import json
import struct
import zipfile

PAIRS = [
    ("Question", "Answer", "Date"),
    ("Who keeps the lighthouse?", "Old Maren Tibb keeps the lighthouse.", "2024-01-05"),
    ("How many steps lead to the tower?", "There are 417 steps.", "2024-02-06"),
    ("When does the ferry leave?", "The ferry leaves at 6:45.", "2024-03-07"),
    ("What colour is the mayor's hat?", "It is plum, with a copper band.", "2024-04-08"),
    ("Wo ist der Schlüssel?", "Unter der Fußmatte, wie immer.", "2024-05-09"),
]


def xlsx() -> bytes:
    import xlsxwriter

    out = io.BytesIO()
    with xlsxwriter.Workbook(out) as book:
        sheet, notes = book.add_worksheet("FAQ"), book.add_worksheet("Notes")
        day = book.add_format({"num_format": "yyyy-mm-dd"})
        for number, (asked, told, date) in enumerate(PAIRS):
            sheet.write_string(number, 0, asked)
            sheet.write_string(number, 1, told)
            if number:
                sheet.write_datetime(number, 2, datetime.datetime.fromisoformat(date), day)
        sheet.write_formula(6, 0, '="Who "&"knows?"', value="Who knows?")
        sheet.write_formula(6, 1, "=1/0", value="#DIV/0!")
        sheet.write_url(7, 1, "https://example.org/answer")
        sheet.write_rich_string(7, 0, "What is ", book.add_format({"bold": True}), "bold", "?")
        sheet.merge_range(9, 0, 9, 2, "merged")
        sheet.write_boolean(8, 0, True)
        notes.write_number(3, 3, 3.25)
    return out.getvalue()


def xlsx_inline() -> bytes:
    """As small programs write it: texts in the cells, no styles, references left out."""
    rows = "".join(
        "<row>" + "".join(f'<c t="inlineStr"><is><t>{text}</t></is></c>' for text in row) + "</row>" for row in PAIRS
    )
    return zipped(xlsx_parts(rows))


def xlsx_parts(rows: str, shared: str = "") -> dict[str, str | bytes]:
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006/"
    parts: dict[str, str | bytes] = {
        "[Content_Types].xml": f'<Types xmlns="{package}content-types"/>',
        "_rels/.rels": f'<Relationships xmlns="{package}relationships"><Relationship Id="rId1" '
        f'Type="{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}relationships"><Relationship Id="rId1" '
        f'Type="{office}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
        '<sheet name="FAQ" sheetId="1" r:id="rId1"/></sheets></workbook>',
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData>{rows}</sheetData></worksheet>',
    }
    if shared:
        parts["xl/sharedStrings.xml"] = f'<sst xmlns="{main}">{shared}</sst>'
    return parts


def ods(rows: str | None = None) -> bytes:
    names = "urn:oasis:names:tc:opendocument:xmlns"
    cell = '<table:table-cell office:value-type="string"><text:p>{}</text:p></table:table-cell>'
    if rows is None:
        rows = "".join(
            f"<table:table-row>{''.join(map(cell.format, row))}"
            '<table:table-cell table:number-columns-repeated="16380"/></table:table-row>'
            for row in PAIRS
        )
        rows += '<table:table-row table:number-rows-repeated="1048560"><table:table-cell/></table:table-row>'
    content = (
        f'<office:document-content xmlns:office="{names}:office:1.0" xmlns:table="{names}:table:1.0"'
        f' xmlns:text="{names}:text:1.0"><office:body><office:spreadsheet><table:table table:name="FAQ">'
        f"{rows}</table:table></office:spreadsheet></office:body></office:document-content>"
    )
    kind = "application/vnd.oasis.opendocument.spreadsheet"
    manifest = (
        f'<manifest:manifest xmlns:manifest="{names}:manifest:1.0"><manifest:file-entry manifest:full-path="/" '
        f'manifest:media-type="{kind}"/></manifest:manifest>'
    )
    return zipped({"mimetype": kind, "META-INF/manifest.xml": manifest, "content.xml": content})


def zipped(parts: dict[str, str | bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    return out.getvalue()


Cells = list[tuple[int, int, str | float | datetime.date]]  # bool is a float here
_DAYS_FROM = datetime.date(1899, 12, 30)


def xls(cells: Cells | None = None, **lies: int) -> bytes:
    """BIFF8 in a compound file (MS-XLS, MS-CFB): one sheet. `lies` change fields of the container."""
    if cells is None:
        cells = [(row, column, text) for row, texts in enumerate(PAIRS) for column, text in enumerate(texts)]

    def record(kind: int, data: bytes) -> bytes:
        return struct.pack("<HH", kind, len(data)) + data

    def begin(kind: int) -> bytes:
        return record(0x809, struct.pack("<HHHHII", 0x600, kind, 0, 0, 0, 0))

    name = b"FAQ"
    head = begin(5) + record(0x42, struct.pack("<H", 1200))
    for code in (0, 14):  # General, and a day by the country: formats 0 and 1 of the cells below
        head += record(0xE0, struct.pack("<HH", 0, code) + bytes(16))
    bound = len(record(0x85, bytes(8) + name))
    end = record(0x0A, b"")
    place = len(head) + bound + len(end)
    head += record(0x85, struct.pack("<IBBBB", place, 0, 0, len(name), 0) + name) + end
    sheet = begin(0x10)
    for row, column, value in cells:
        match value:
            case str():
                letters = value.encode("utf-16-le")
                sheet += record(0x204, struct.pack("<HHHHB", row, column, 0, len(value), 1) + letters)
            case bool():
                sheet += record(0x205, struct.pack("<HHHBB", row, column, 0, value, 0))
            case datetime.date():
                sheet += record(0x203, struct.pack("<HHHd", row, column, 1, (value - _DAYS_FROM).days))
            case _:
                sheet += record(0x203, struct.pack("<HHHd", row, column, 0, value))
    stream = head + sheet + end
    return compound(stream.ljust(4096, b"\0"), **lies)


def compound(
    stream: bytes,
    *,
    difat_start: int = 0xFFFFFFFE,
    directory_next: int = 0xFFFFFFFE,
    first_next: int | None = None,
    fat_length: int = 1,
    length: int | None = None,
) -> bytes:
    """The stream called Workbook in a compound file of 512-byte sectors."""
    sectors = -(-len(stream) // 512)
    fats = -(-(sectors + 2) // 128)
    fats = -(-(sectors + 1 + fats) // 128)
    chain = [0xFFFFFFFD] * fats + [directory_next]
    first = len(chain)
    chain += [*range(first + 1, first + sectors), 0xFFFFFFFE]
    if first_next is not None:
        chain[first] = first_next
    table = struct.pack(f"<{len(chain)}I", *chain).ljust(512 * fats, b"\xff")
    header = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(16) + struct.pack("<HHHHH", 0x3E, 3, 0xFFFE, 9, 6) + bytes(10)
    header += struct.pack("<IIIIIIIII", fat_length, fats, 0, 4096, 0xFFFFFFFE, 0, difat_start, 0, 0)
    header += b"".join(struct.pack("<I", place) for place in range(fats))
    header = header.ljust(512, b"\xff")

    def entry(name: str, kind: int, start: int, size: int, child: int) -> bytes:
        letters = name.encode("utf-16-le") + b"\0\0"
        return letters.ljust(64, b"\0") + struct.pack(
            "<HBBIII16sIQQIQ", len(letters), kind, 1, 0xFFFFFFFF, 0xFFFFFFFF, child, b"", 0, 0, 0, start, size
        )

    size = len(stream) if length is None else length
    directory = entry("Root Entry", 5, 0xFFFFFFFE, 0, 1) + entry("Workbook", 2, first, size, 0xFFFFFFFF)
    return header + table + directory.ljust(512, b"\0") + stream.ljust(512 * sectors, b"\0")


def xlsb(cells: Cells | None = None) -> bytes:
    """The binary workbook of MS-XLSB: records of a type, a length and data."""
    if cells is None:
        cells = [(row, column, text) for row, texts in enumerate(PAIRS) for column, text in enumerate(texts)]

    def varint(number: int) -> bytes:
        parts = []
        while True:
            parts.append(number & 0x7F | (0x80 if number > 0x7F else 0))
            number >>= 7
            if not number:
                return bytes(parts)

    def record(kind: int, data: bytes = b"") -> bytes:
        code = bytes([kind]) if kind < 128 else bytes([kind & 0x7F | 0x80, kind >> 7])
        return code + varint(len(data)) + data

    def wide(text: str) -> bytes:
        return struct.pack("<I", len(text)) + text.encode("utf-16-le")

    book = record(131) + record(143) + record(156, struct.pack("<II", 0, 1) + wide("rId1") + wide("FAQ"))
    book += record(144) + record(132)
    bottom = max((row for row, _, _ in cells), default=0)
    right = max((column for _, column, _ in cells), default=0)
    sheet = record(129) + record(148, struct.pack("<IIII", 0, bottom, 0, right)) + record(145)
    row_before = None
    for row, column, value in cells:
        if row != row_before:
            sheet += record(0, struct.pack("<IIHBBB", row, 0, 300, 0, 0, 0) + struct.pack("<I", 0))
            row_before = row
        match value:
            case str():
                sheet += record(6, struct.pack("<II", column, 0) + wide(value))
            case bool():
                sheet += record(4, struct.pack("<IIB", column, 0, value))
            case datetime.date():
                sheet += record(5, struct.pack("<IId", column, 1, (value - _DAYS_FROM).days))
            case _:
                sheet += record(5, struct.pack("<IId", column, 0, value))
    sheet += record(146) + record(130)
    parts = xlsx_parts("")
    for name in ("xl/workbook.xml", "xl/worksheets/sheet1.xml", "xl/_rels/workbook.xml.rels"):
        del parts[name]
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006/relationships"
    parts["xl/_rels/workbook.bin.rels"] = (
        f'<Relationships xmlns="{package}"><Relationship Id="rId1" Type="{office}/worksheet" '
        'Target="worksheets/sheet1.bin"/></Relationships>'
    )
    parts["xl/workbook.bin"] = book
    parts["xl/worksheets/sheet1.bin"] = sheet
    formats = [record(47, struct.pack("<HH", 0, code) + bytes(12)) for code in (0, 14)]
    styles = record(278) + record(617, struct.pack("<I", 2)) + b"".join(formats) + record(618) + record(279)
    parts["xl/styles.bin"] = styles
    return zipped(parts)


def parquet() -> bytes:
    import pyarrow as arrow
    from pyarrow import parquet as format

    head, *rows = PAIRS
    out = io.BytesIO()
    format.write_table(arrow.table({name: [row[i] for row in rows] for i, name in enumerate(head)}), out)
    return out.getvalue()


def texts() -> dict[str, bytes]:
    head, *rows = PAIRS
    records = [dict(zip(head, row, strict=True)) for row in rows]
    chats = [
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": told}]}
        for asked, told, _ in rows
    ]
    comma = "\r\n".join(",".join(f'"{cell}"' for cell in row) for row in PAIRS)
    return {
        "csv": comma.encode(),
        "bom.csv": comma.encode("utf-8-sig"),
        "utf16.csv": comma.encode("utf-16"),
        "utf32.csv": comma.encode("utf-32"),
        "latin.csv": comma.replace(",", ";").encode("cp1252"),
        "sep.csv": ("sep=;\n" + comma.replace('","', '";"')).encode(),
        "tsv": "\n".join("\t".join(row) for row in PAIRS).encode(),
        "txt": "\n".join("|".join(row) for row in PAIRS).encode(),
        "json": json.dumps(records, ensure_ascii=False).encode(),
        "columns.json": json.dumps({"columns": PAIRS[0], "data": rows}).encode(),
        "nested.json": json.dumps({"data": records, "more": chats}).encode(),
        "jsonl": "\n".join(json.dumps(record) for record in records).encode(),
        "chat.jsonl": "\n".join(map(json.dumps, chats)).encode(),
    }


def all_seeds() -> dict[str, bytes]:
    return {
        "a.xlsx": xlsx(),
        "b.xlsx": xlsx_inline(),
        "c.ods": ods(),
        "d.xls": xls(),
        "e.xlsb": xlsb(),
        "f.parquet": parquet(),
        **{f"g.{name}": data for name, data in texts().items()},
    }
