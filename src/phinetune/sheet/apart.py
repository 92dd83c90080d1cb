"""A file's bytes -> its rows, read in a process of its own with a limit on memory and time.

    rows_apart("workbook", data, "faq.xlsx")  ->  Part("FAQ", hidden=False, rows=[(4, ["Question", "Answer"]), …])

A file of 20 kB can make the reader ask for 10 GB or run for ever, and its failure would end the whole program. Apart it
costs 25 ms more and is an error like any other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from phinetune.errors import SheetError
from phinetune.sheet.limits import MOST_ROWS, too_large, too_much

_PROGRAM = Path(__file__).with_name("reader_process.py")
_MEMORY = 1 << 30  # bytes
_MOST_OUTPUT = 256 << 20  # characters of text in the sheets: half a million pages
# "This row, a million times" takes no room in a file; rows that differ take several bytes each, packed as they may be.
_ROWS_OF_ANY_FILE, _ROWS_PER_BYTE = 100_000, 1
_OUTPUT_OF_ANY_FILE, _OUTPUT_PER_BYTE = 64 << 20, 200
_SECONDS, _SECONDS_PER_MEGABYTE = 3, 2  # of computing, for a file of no size and for each megabyte; 0.4 s are usual
_WAITING = 3  # times as long on the clock, where others compute too

Kind = Literal["workbook", "values", "parquet"]


@dataclass
class Part:
    """A sheet, or the one table of a Parquet file. Cells are as JSON has them, dates are texts.

    Of "values", they are [days, format] where Excel can hold them.
    """

    name: str | None
    hidden: bool
    rows: list[tuple[int, Any]] = field(default_factory=list)
    cut: bool = False
    """Whether rows were left out because no more were wanted."""


def rows_apart(kind: Kind, data: bytes, file: str, most: int | None = None) -> list[Part]:
    """Every sheet with its numbered rows, the first `most` of each where that is said.

    Raises SheetError: protected, damaged, or more than can be read.
    """
    seconds = _SECONDS + _SECONDS_PER_MEGABYTE * (len(data) >> 20)
    command = [sys.executable, "-P", str(_PROGRAM), kind, str(_MEMORY), str(seconds)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, env=environment
        ) as process,
    ):
        assert process.stdin
        assert process.stdout
        timer = threading.Timer(_WAITING * seconds, process.kill)
        timer.start()
        try:
            _give(process.stdin, data)
            parts = _collect(process.stdout, kind, file, len(data), most)
        finally:
            expired = not timer.is_alive()
            timer.cancel()
            process.kill()
        if parts is None:
            process.wait()
            complaints.seek(0)
            raise _why(process.returncode, expired, complaints.read(1 << 20), seconds, kind, file)
    return parts


def _give(stream: IO[bytes], data: bytes) -> None:
    try:
        with stream:
            stream.write(data)
    except OSError:  # it died before it had read all
        return


def _collect(lines: IO[bytes], kind: Kind, file: str, packed: int, most: int | None) -> list[Part] | None:
    """What was read from a file of `packed` bytes; None when the reader died on the way."""
    parts: list[Part] = []
    size = count = 0
    most_rows = min(MOST_ROWS, max(_ROWS_OF_ANY_FILE, _ROWS_PER_BYTE * packed))
    most_output = min(_MOST_OUTPUT, max(_OUTPUT_OF_ANY_FILE, _OUTPUT_PER_BYTE * packed))
    whole = "" if most_rows == MOST_ROWS else f" in only {packed:,} bytes"
    for line in _lines(lines):
        size += len(line)
        if size > most_output:
            raise too_large(file, f"the text in it is more than {most_output >> 20} MiB")
        match json.loads(line):
            case [*rows]:
                part = parts[-1]
                part.cut = most is not None and len(part.rows) + len(rows) > most
                taken = rows[: most - len(part.rows)] if part.cut and most is not None else rows
                part.rows += taken
                count += len(taken)
                _refuse_more_rows(count, most_rows, whole, file)
            case {"rows": announced}:
                if most is None:
                    _refuse_more_rows(announced, most_rows, whole, file)
            case {"sheet": name, "hidden": hidden}:
                parts.append(Part(name, hidden))
            case {"error": "password"}:
                raise password_protected(file)
            case {"error": "memory"}:
                raise _takes_too_much(file)
            case {"error": _}:
                raise damaged(file, kind)
            case _:
                return parts
    return None


def _refuse_more_rows(count: int, most: int, whole: str, file: str) -> None:
    if count > most:
        raise too_much(file, f"it has more than {most:,} rows{whole}")


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Whole lines only; one that is longer than all that is taken comes in pieces, and so is refused by its length."""
    while line := stream.readline(_MOST_OUTPUT + 1):
        if line.endswith(b"\n") or len(line) > _MOST_OUTPUT:
            yield line


def _why(code: int, expired: bool, complaints: bytes, seconds: int, kind: Kind, file: str) -> SheetError:
    if b"memory" in complaints:  # the last words of the Rust reader
        return _takes_too_much(file)
    if expired or -code in (9, 24):  # SIGKILL and SIGXCPU, of the limit on time
        return too_large(file, f"reading it takes more than {seconds} seconds")
    return damaged(file, kind)


def _takes_too_much(file: str) -> SheetError:
    return too_large(file, f"reading it takes more than {_MEMORY >> 20:,} MiB of memory")


def password_protected(file: str) -> SheetError:
    return SheetError(
        f"{file} is protected by a password.",
        "Open it in Excel, remove the password (File > Info > Protect Workbook), save it and try again.",
    )


def damaged(file: str, kind: Kind = "workbook") -> SheetError:
    workbook = "or open it in Excel, let Excel repair it and save it as .xlsx."
    repair = "or export it as .csv or .xlsx." if kind == "parquet" else workbook
    return SheetError(
        f"{file} is damaged: it ends too early or parts of it cannot be read.",
        f"Copy or download it again, {repair}",
    )
