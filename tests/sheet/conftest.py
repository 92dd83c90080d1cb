"""Fixtures that write small table files, each in the words of the test that needs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from zipfile import ZipFile

import pytest
import xlsxwriter

Sheets = dict[str, Sequence[Sequence[object]]]


@pytest.fixture
def workbook(tmp_path: Path) -> Callable[..., Path]:
    """workbook({"FAQ": [["Question", "Answer"], ["Who?", "We."]]}) writes an .xlsx file."""

    def write(sheets: Sheets, name: str = "book.xlsx") -> Path:
        book = xlsxwriter.Workbook(tmp_path / name)
        for title, rows in sheets.items():
            sheet = book.add_worksheet(title)
            for number, row in enumerate(rows):
                sheet.write_row(number, 0, row)
        book.close()
        return tmp_path / name

    return write


@pytest.fixture
def text_file(tmp_path: Path) -> Callable[..., Path]:
    """text_file("Frage;Antwort", encoding="cp1252") writes a text file."""

    def write(text: str, name: str = "table.csv", encoding: str = "utf-8") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return path

    return write


@pytest.fixture
def open_document(tmp_path: Path) -> Callable[..., Path]:
    """open_document([["question", "answer"]]) writes the smallest .ods file with these texts, and `extra` rows."""

    def write(rows: Sequence[Sequence[str]], name: str = "book.ods", extra: Sequence[str] = ()) -> Path:
        names = "urn:oasis:names:tc:opendocument:xmlns"
        cell = '<table:table-cell office:value-type="string"><text:p>{}</text:p></table:table-cell>'
        lines = ("<table:table-row>" + "".join(map(cell.format, row)) + "</table:table-row>" for row in rows)
        content = (
            f'<office:document-content xmlns:office="{names}:office:1.0" xmlns:table="{names}:table:1.0"'
            f' xmlns:text="{names}:text:1.0"><office:body><office:spreadsheet><table:table table:name="FAQ">'
            + "".join([*lines, *extra])
            + "</table:table></office:spreadsheet></office:body></office:document-content>"
        )
        kind = "application/vnd.oasis.opendocument.spreadsheet"
        with ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("mimetype", kind)
            archive.writestr(
                "META-INF/manifest.xml",
                f'<manifest:manifest xmlns:manifest="{names}:manifest:1.0">'
                f'<manifest:file-entry manifest:full-path="/" manifest:media-type="{kind}"/></manifest:manifest>',
            )
            archive.writestr("content.xml", content)
        return tmp_path / name

    return write
