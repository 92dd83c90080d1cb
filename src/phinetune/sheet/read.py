"""A file of any name -> its tables. What the file is, its first bytes tell; its ending is not believed.

zip ─ xl/…, content.xml ─► workbook      .xlsx .xlsm .xlsb .ods
OLE ─ Workbook          ─► workbook      .xls
PAR1                    ─► records       .parquet
text ─ {"… or […        ─► records       .json .jsonl
     └ anything else    ─► delimited     .csv .tsv .txt
"""

from __future__ import annotations

import hashlib
import io
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from lzma import LZMAError
from pathlib import Path
from xml.parsers.expat import ExpatError
from zipfile import BadZipFile, ZipFile

from phinetune.errors import SheetError, neighbour
from phinetune.sheet.apart import damaged, password_protected
from phinetune.sheet.delimited import delimited_table
from phinetune.sheet.encoding import decode
from phinetune.sheet.limits import MOST_TEXT_BYTES, too_large
from phinetune.sheet.open_document import find_shown
from phinetune.sheet.records import json_tables, looks_like_json, parquet_table
from phinetune.sheet.table import SheetWarning, Table
from phinetune.sheet.workbook import workbook_tables
from phinetune.sheet.workbook_xml import CellFaults, find_faults

_ZIP = b"PK"
_OLE = bytes.fromhex("d0cf11e0a1b11ae1")
_FOREIGN = {
    b"%PDF": "a PDF document",
    b"{\\rtf": "a text document (RTF)",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"GIF8": "a picture",
    b"GGUF": "a language model (GGUF)",
    b"\x1f\x8b": "a compressed file (gzip)",
    b"7z\xbc\xaf": "a compressed archive (7z)",
    b"Rar!": "a compressed archive (RAR)",
    b"SQLite format": "a database (SQLite)",
}
_FOREIGN_ZIPS = {
    "word/": "a Word document",
    "ppt/": "a PowerPoint presentation",
    "Index/": "an Apple Numbers document",
}
# What zipfile and the XML parser raise for a damaged archive; OSError is for bzip2.
DAMAGE = (
    BadZipFile, zlib.error, LZMAError, OSError, EOFError, LookupError, NotImplementedError, RuntimeError, ExpatError,
    ValueError,
)  # fmt: skip
_EXPORT_HINT = "Open it in the program it comes from and export the table as .xlsx or .csv."

# Text of half a million pages; what unpacks to more is no list of questions, and a bomb at worst.
_MAX_FILE_BYTES = 256 << 20
_MAX_UNPACKED_BYTES = 256 << 20
_SUSPICIOUS_BYTES = 64 << 20
_SUSPICIOUS_RATIO = 100
_MOST_COLUMNS = 16_384  # of Excel
_READ = (".xml", ".rels", ".bin")  # parts with cells; pictures are not unpacked


def read_tables(path: str | Path, most: int | None = None) -> list[Table]:
    """Every table of the file that has rows, in the file's order; where `most` is said, that many rows of each or more.

    Raises SheetError as `read_hashed`.
    """
    return read_hashed(path, most)[0]


def read_hashed(path: str | Path, most: int | None = None) -> tuple[list[Table], str]:
    """The tables as `read_tables` has them, and the SHA-256 of the bytes they were read from.

    Raises SheetError: no such file, not readable, not a table, protected, damaged, too large, or without rows.
    """
    path = Path(path)
    data = _read_bytes(path)
    if data.startswith(_ZIP):
        tables = _zip_tables(data, path.name, most)
    elif data.startswith(_OLE):
        tables = _ole_tables(data, path.name, most)
    elif data.startswith(b"PAR1"):
        tables = [parquet_table(data, path.name, most)]
    else:
        tables = _text_tables(data, path.name, most)
    tables = [table for table in tables if table.rows]
    if not tables:
        raise SheetError(
            f"{path.name} has no rows.",
            "Give it one column with questions and one with answers, a pair in each row.",
        )
    for table in tables:
        _refuse_endless(table, path.name)
    return tables, hashlib.sha256(data).hexdigest()


def is_workbook(data: bytes) -> bool:
    return data.startswith((_ZIP, _OLE))


def _refuse_endless(table: Table, file: str) -> None:
    widest = max(table.rows, key=lambda row: len(row.cells))
    if (width := len(widest.cells)) > _MOST_COLUMNS:
        where = file + (f', sheet "{table.name}"' if table.name else "")
        raise SheetError(
            f"{where}, row {widest.number}: it has {width:,} cells, and a spreadsheet has {_MOST_COLUMNS:,} at most.",
            "Look at how the file was made: a row should hold one question and its answer.",
        )


def refuse_unreadable(path: str | Path) -> None:
    """Look at the file without opening it. Raises SheetError: no such file, or none that can be read."""
    path = Path(path)
    with _reading(path):
        about = path.stat()
    if stat.S_ISDIR(about.st_mode):
        raise SheetError(f"{path} is a folder, not a file.", "Name the spreadsheet inside it.")
    # A device or pipe may go on for ever.
    if not stat.S_ISREG(about.st_mode):
        raise SheetError(f"{path} is no file but a device or pipe.", "Save what comes out of it to a file first.")
    if about.st_size > _MAX_FILE_BYTES:
        raise too_large(path.name, f"it has {about.st_size >> 20:,} MiB")


def _read_bytes(path: Path) -> bytes:
    refuse_unreadable(path)
    with _reading(path):
        data = path.read_bytes()
    if not data:
        raise SheetError(f"{path.name} is empty (0 bytes).", "Save or download it again.")
    return data


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        near = neighbour(path)
        raise SheetError(
            f"There is no file {path}.", f"Did you mean {near}?" if near else "Check the name and the folder."
        ) from None
    except PermissionError:
        raise SheetError(
            f"{path} may not be read: permission denied.",
            "Close it in other programs, or ask its owner for permission to read it.",
        ) from None
    except OSError as error:
        raise SheetError(f"{path} cannot be read: {error.strerror or error}.", "Copy it to this computer.") from None


def _zip_tables(data: bytes, file: str, most: int | None) -> list[Table]:
    try:
        with ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            _refuse_foreign(names, file)
            _refuse_bomb(archive, len(data), file)
            faults: dict[str, CellFaults] = {}
            if "xl/workbook.xml" in names:
                faults = find_faults(archive, file)
            elif "content.xml" in names:
                faults = find_shown(archive)
    except DAMAGE:
        raise damaged(file) from None
    return workbook_tables(data, file, faults, tells_formats="xl/workbook.bin" not in names, most=most)


def _refuse_foreign(names: list[str], file: str) -> None:
    if any(name in ("xl/workbook.xml", "xl/workbook.bin", "content.xml") for name in names):
        return
    kinds = (kind for start, kind in _FOREIGN_ZIPS.items() if any(name.startswith(start) for name in names))
    raise _not_a_table(file, next(kinds, "a zip archive without a spreadsheet"))


def _refuse_bomb(archive: ZipFile, packed: int, file: str) -> None:
    unpacked = sum(entry.file_size for entry in archive.infolist() if entry.filename.lower().endswith(_READ))
    if unpacked > _MAX_UNPACKED_BYTES or unpacked > max(_SUSPICIOUS_BYTES, packed * _SUSPICIOUS_RATIO):
        raise too_large(file, f"it unpacks to {unpacked >> 20:,} MiB")


def _ole_tables(data: bytes, file: str, most: int | None) -> list[Table]:
    def holds(stream: str) -> bool:
        return stream.encode("utf-16-le") in data

    if holds("EncryptedPackage"):
        raise password_protected(file)
    if holds("WordDocument"):
        raise _not_a_table(file, "an old Word document")
    return workbook_tables(data, file, {}, tells_formats=False, most=most)


def _text_tables(data: bytes, file: str, most: int | None) -> list[Table]:
    for start, kind in _FOREIGN.items():
        if data.startswith(start):
            raise _not_a_table(file, kind)
    if len(data) > MOST_TEXT_BYTES:
        raise too_large(file, f"it is a text of {len(data) >> 20:,} MiB, and {MOST_TEXT_BYTES >> 20} are read")
    try:
        text, guessed = decode(data)
    except UnicodeError:
        raise _not_a_table(file, "neither text nor a spreadsheet") from None
    if text[:1000].lstrip()[:200].lower().startswith(("<!doctype", "<html", "<table", "<?xml")):
        raise _not_a_table(file, "a web page or XML file, whatever its name says")
    if not text or text.isspace():
        return []
    if looks_like_json(text):
        return json_tables(text, file, most)
    table = delimited_table(text, file, most)
    if guessed is None:
        return [table]
    doubt = SheetWarning(
        "guessed_encoding",
        f"The file does not say how its letters are stored; it was read as {guessed}. "
        "If accents or letters look wrong, save it as CSV UTF-8.",
    )
    return [replace(table, warnings=(doubt, *table.warnings))]


def _not_a_table(file: str, kind: str) -> SheetError:
    return SheetError(f"{file} is not a table: it is {kind}.", _EXPORT_HINT)
