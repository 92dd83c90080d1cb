"""Workbooks and their like made to do damage, each by a name: bombs, cycles, lies about size, place and kind."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable

import _seeds as seeds

Maker = Callable[[], bytes]


def cell(reference: str, text: str = "stray", attribute: str = 'r="{}"') -> str:
    return f'<c {attribute.format(reference)} t="inlineStr"><is><t>{text}</t></is></c>'


def sheet(rows: str, shared: str = "", **more: str | bytes) -> bytes:
    return seeds.zipped(seeds.xlsx_parts(rows, shared) | more)


def _honest_rows() -> str:
    return "".join(
        f'<row r="{number}">{cell(f"A{number}", asked)}{cell(f"B{number}", told)}</row>'
        for number, (asked, told, _) in enumerate(seeds.PAIRS, start=1)
    )


def _with_doctype(part: str, declared: str, used: str) -> bytes:
    parts = seeds.xlsx_parts(_honest_rows(), f"<si><t>{used}</t></si>")
    text = str(parts[part]).replace("Who keeps the lighthouse?", used)
    return seeds.zipped(parts | {part: f'<?xml version="1.0"?><!DOCTYPE x [{declared}]>{text}'})


def _laughs() -> str:
    lines = ['<!ENTITY a0 "ha">']
    lines += [f'<!ENTITY a{level} "{f"&a{level - 1};" * 10}">' for level in range(1, 11)]
    return "".join(lines)


def _understated(size: int) -> bytes:
    """A worksheet that says it is small in both of its headers, and unpacks to `size` bytes."""
    row = _honest_rows()
    head = str(seeds.xlsx_parts(row)["xl/worksheets/sheet1.xml"]).replace("</sheetData></worksheet>", "")
    told = (head + "</sheetData></worksheet>").encode()
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = packer.compress(head.encode())
    filler = b'<row><c t="inlineStr"><is><t>' + b" " * (1 << 20) + b"</t></is></c></row>"
    for _ in range(size >> 20):
        body += packer.compress(filler)
    body += packer.compress(b"</sheetData></worksheet>") + packer.flush()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in seeds.xlsx_parts(row).items():
            if "sheet1" not in name:
                archive.writestr(name, text)
        entry = zipfile.ZipInfo("xl/worksheets/sheet1.xml")
        archive.start_dir = packed.tell()
        entry.header_offset = packed.tell()
        entry.CRC, entry.file_size, entry.compress_size = zlib.crc32(told), len(told), len(body)
        entry.compress_type = zipfile.ZIP_DEFLATED
        packed.write(entry.FileHeader() + body)
        archive.start_dir = packed.tell()
        archive.filelist.append(entry)
        archive.NameToInfo[entry.filename] = entry
        archive._didModify = True
    return packed.getvalue()


def _two_entries(first: bytes, second: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in seeds.xlsx_parts(_honest_rows()).items():
            archive.writestr(name, text)
        archive.writestr("xl/worksheets/sheet1.xml", first)
        archive.writestr("xl/worksheets/sheet1.xml", second)
    return out.getvalue()


def _ods_row(repeat_row: int, repeat_column: int, text: str) -> str:
    return (
        f'<table:table-row table:number-rows-repeated="{repeat_row}"><table:table-cell office:value-type="string" '
        f'table:number-columns-repeated="{repeat_column}"><text:p>{text}</text:p></table:table-cell></table:table-row>'
    )


def _parquet_bomb() -> bytes:
    import pyarrow as arrow
    from pyarrow import parquet as format

    out = io.BytesIO()
    text = "a" * (1 << 20)
    index = arrow.array([0] * 20_000, arrow.int32())
    column = arrow.DictionaryArray.from_arrays(index, arrow.array([text]))
    format.write_table(arrow.table({"question": column, "answer": column}), out, compression="zstd")
    return out.getvalue()


def _parquet_rows() -> bytes:
    import pyarrow as arrow
    from pyarrow import parquet as format

    out = io.BytesIO()
    column = arrow.array(["same"] * 20_000_000).dictionary_encode()
    format.write_table(arrow.table({"question": column, "answer": column}), out, compression="zstd")
    return out.getvalue()


_STRAY: dict[str, Maker] = {
    f"stray cell {reference} {attribute}": (
        lambda reference=reference, attribute=attribute: sheet(
            f'{_honest_rows()}<row r="{"".join(filter(str.isdigit, reference)) or 1}">'
            f"{cell(reference, attribute=attribute)}</row>"
        )
    )
    for reference in ("XFD20000", "XFD1048576", "A1048576", "ZZZ9999999", "A0", "A99999999999", "a9", "ẞ1", "")
    for attribute in ('r="{}"', "r = '{}'", '\nr="{}"', 's="0" r="{}"')
}

_BARE: dict[str, Maker] = {
    "row far down, no references": lambda: sheet(_honest_rows() + '<row r="1048576">' + "<c><v>1</v></c>" * 16384),
    "16,384 columns": lambda: sheet(_honest_rows() + f"<row>{'<c><v>1</v></c>' * 16384}</row>"),
    "9,000,000 cells": lambda: sheet(_honest_rows() + f"<row>{'<c><v>1</v></c>' * 3000}</row>" * 3000),
    "negative row": lambda: sheet('<row r="-1"><c r="A-1"><v>1</v></c></row>'),
    "row of letters": lambda: sheet('<row r="x"><c r="A1" t="e"><v>#N/A</v></c></row>'),
    "dimension": lambda: seeds.zipped(
        {
            name: str(text).replace("<sheetData>", '<dimension ref="A1:XFD1048576"/><sheetData>')
            for name, text in seeds.xlsx_parts(_honest_rows()).items()
        }
    ),
    "shared text a million times": lambda: sheet(
        "<row>" + '<c t="s"><v>0</v></c>' * 1000 + "</row>", f"<si><t>{'a' * 1_000_000}</t></si>"
    ),
    "shared text, 100,000 full cells": lambda: sheet(
        ("<row>" + '<c t="s"><v>0</v></c>' * 100 + "</row>") * 1000, f"<si><t>{'a' * 32767}</t></si>"
    ),
    "shared index out of range": lambda: sheet(
        '<row><c t="s"><v>99999999999999999999</v></c><c t="s"><v>-1</v></c></row>', "<si><t>a</t></si>"
    ),
    "shared count": lambda: seeds.zipped(
        seeds.xlsx_parts('<row><c t="s"><v>0</v></c></row>')
        | {"xl/sharedStrings.xml": '<sst count="4294967295" uniqueCount="4294967295"><si><t>a</t></si></sst>'}
    ),
    "merges": lambda: seeds.zipped(
        {
            name: str(text).replace(
                "</sheetData>",
                '</sheetData><mergeCells count="9999999">'
                + '<mergeCell ref="A1:XFD1048576"/><mergeCell ref="B2:A1"/><mergeCell ref="x"/>' * 500
                + "</mergeCells>",
            )
            for name, text in seeds.xlsx_parts(_honest_rows()).items()
        }
    ),
    "deep elements": lambda: sheet("<a>" * 200_000 + "</a>" * 200_000),
    "deep elements in strings": lambda: sheet(_honest_rows(), "<si>" * 200_000),
    "long attribute": lambda: sheet(f'<row r="{"9" * 1_000_000}"><c r="{"A" * 1_000_000}1" t="e"/></row>'),
    "many attributes": lambda: sheet("<row " + " ".join(f"a{i}='1'" for i in range(100_000)) + "><c t='e'/></row>"),
    "hundred thousand sheets": lambda: seeds.zipped(
        seeds.xlsx_parts(_honest_rows())
        | {
            "xl/workbook.xml": '<workbook xmlns:r="r"><sheets>'
            + "".join(f'<sheet name="s{i}" sheetId="{i}" r:id="rId1"/>' for i in range(100_000))
            + "</sheets></workbook>"
        }
    ),
    "sheets of one part": lambda: seeds.zipped(
        seeds.xlsx_parts((_honest_rows() + "<row/>" * 100) * 200)
        | {
            "xl/workbook.xml": '<workbook xmlns:r="r"><sheets>'
            + "".join(f'<sheet name="s{i}" sheetId="{i}" r:id="rId1"/>' for i in range(1000))
            + "</sheets></workbook>"
        }
    ),
    "sheet outside": lambda: seeds.zipped(
        {
            name.replace("worksheets/", ""): str(text).replace("worksheets/sheet1", "../../../../etc/passwd#")
            for name, text in seeds.xlsx_parts(_honest_rows()).items()
        }
    ),
    "absurd dates": lambda: sheet(
        "".join(
            f'<row><c t="d"><v>{value}</v></c><c s="1"><v>{value}</v></c></row>'
            for value in ("-1", "1e308", "-1e308", "NaN", "inf", "2958466", "99999999999", "0000-00-00", "x")
        ),
        **{"xl/styles.xml": '<styleSheet><cellXfs><xf numFmtId="0"/><xf numFmtId="14"/></cellXfs></styleSheet>'},
    ),
    "styles that count": lambda: sheet(
        '<row><c s="4294967295"><v>1</v></c></row>',
        **{
            "xl/styles.xml": '<styleSheet><cellXfs count="4294967295"><xf numFmtId="99999999999"/></cellXfs>'
            "</styleSheet>"
        },
    ),
    "formula with a link": lambda: sheet(
        '<row><c t="str"><f>HYPERLINK("http://127.0.0.1:9/")</f><v>q</v></c><c><f>WEBSERVICE("http://127.0.0.1:9/")'
        "</f></c></row>"
    ),
    "billion laughs in the sheet": lambda: _with_doctype("xl/worksheets/sheet1.xml", _laughs(), "&a10;"),
    "billion laughs in the strings": lambda: _with_doctype("xl/sharedStrings.xml", _laughs(), "&a10;"),
    "billion laughs in the workbook": lambda: _with_doctype("xl/workbook.xml", _laughs(), "&a10;"),
    "external entity": lambda: _with_doctype(
        "xl/worksheets/sheet1.xml", '<!ENTITY a SYSTEM "file:///etc/passwd">', "&a;"
    ),
    "external entity over the network": lambda: _with_doctype(
        "xl/sharedStrings.xml", '<!ENTITY % a SYSTEM "http://127.0.0.1:9/a.dtd"> %a;', "a"
    ),
    "understated by 64 MiB": lambda: _understated(64 << 20),
    "understated by 2 GiB": lambda: _understated(2 << 30),
    "two entries, the second a bomb": lambda: _two_entries(b"<a/>", b"<worksheet>" + b" " * (300 << 20)),
    "two entries, the first a bomb": lambda: _two_entries(b"<worksheet>" + b" " * (300 << 20), b"<a/>"),
    "bomb of blanks": lambda: sheet(_honest_rows() + " " * (100 << 20)),
    "bomb beside the sheet": lambda: sheet(_honest_rows(), **{"xl/media/a.png": b"\0" * (255 << 20)}),
    "zip in a zip": lambda: seeds.zipped({"a.xlsx": seeds.xlsx()}),
    "path tricks": lambda: sheet(_honest_rows(), **{"../../../../tmp/evil": "x", "/etc/evil": "x", "a\\..\\b": "x"}),
    "hundred thousand entries": lambda: sheet(_honest_rows(), **{f"a/{i}": "" for i in range(65_000)}),
    "old names": lambda: seeds.zipped({"xl/workbook.xml": "", "xl/workbook.bin": "", "content.xml": ""}),
    "utf-16 sheet": lambda: seeds.zipped(
        {
            name: str(text).encode("utf-16") if "sheet1" in name else text
            for name, text in seeds.xlsx_parts(
                _honest_rows() + '<row r="1048576">' + cell("XFD1048576") + "</row>"
            ).items()
        }
    ),
}

_DOCUMENTS: dict[str, Maker] = {
    "ods a million rows": lambda: seeds.ods(_ods_row(1_000_000, 1, "same")),
    "ods a million rows, wide": lambda: seeds.ods(_ods_row(1_048_576, 16_384, "same")),
    "ods rows beyond": lambda: seeds.ods(_ods_row(2**63 - 1, 2**63 - 1, "same")),
    "ods rows negative": lambda: seeds.ods(_ods_row(-1, -1, "same")),
    "ods long text often": lambda: seeds.ods(_ods_row(5000, 2, "a" * 1_000_000)),
    "ods many repeats": lambda: seeds.ods(_ods_row(1_000_000, 100, "") * 50 + _ods_row(1, 1, "end")),
    "ods laughs": lambda: seeds.zipped(
        {
            "mimetype": "application/vnd.oasis.opendocument.spreadsheet",
            "content.xml": f"<!DOCTYPE x [{_laughs()}]><office:document-content>&a10;</office:document-content>",
        }
    ),
    "xls directory cycle": lambda: seeds.compound(bytes(4096), directory_next=1),
    "xls stream cycle": lambda: seeds.compound(bytes(4096), first_next=2, length=2**40),
    "xls allocation cycle": lambda: seeds.xls(difat_start=1),
    "xls absurd length": lambda: seeds.xls(length=2**62),
    "xls absurd table": lambda: seeds.xls(fat_length=0xFFFFFFF0),
    "xls stray cell": lambda: seeds.xls([(0, 0, "question"), (0, 1, "answer"), (65535, 65535, "stray")]),
    "xls only a head": lambda: seeds.xls()[:512],
    "xls word": lambda: seeds.xls() + "WordDocument".encode("utf-16-le"),
    "xlsb stray cell": lambda: seeds.xlsb([(0, 0, "question"), (0, 1, "answer"), (2**31, 2**31, "stray")]),
    "xlsb stray cell inside": lambda: seeds.xlsb([(0, 0, "question"), (0, 1, "answer"), (1_048_575, 16_383, "s")]),
    "parquet long text often": _parquet_bomb,
    "parquet twenty million rows": _parquet_rows,
    "parquet absurd length": lambda: b"PAR1" + bytes(100) + struct.pack("<I", 0xFFFFFFFF) + b"PAR1",
}

WORKBOOKS = _STRAY | _BARE | _DOCUMENTS
