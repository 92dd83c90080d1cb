"""A program of its own: a workbook or Parquet file comes in at stdin, its rows go out at stdout, JSON by the line.

    {"sheet": "FAQ", "hidden": false}    [[4, ["Question", "Answer"]], [5, …], …]    …    {"end": true}

Run by `apart`. The readers are written in Rust and C++: a file made for it makes them run for ever, ask for all memory,
or end the whole process, and none of this can be caught. Here it hits nobody else. Imports nothing of ours, as every
millisecond counts twice.
"""

import datetime
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice
from typing import Any

_EPOCH = datetime.datetime(1899, 12, 30)
_DAY = datetime.timedelta(days=1)
_FIRST_SURE = datetime.datetime(1900, 3, 1)  # before, Excel counts a day that never was
_TOGETHER = 100  # rows in a line: line by line, 11,000 rows take 0.1 s more


def main() -> None:
    kind, memory, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with suppress(ImportError, ValueError, OSError):  # Windows has none of these, macOS not all
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    read = {"workbook": _workbook, "values": _workbook, "parquet": _parquet}[kind]
    try:
        read(sys.stdin.buffer.read(), _as_value if kind == "values" else _as_text)
        _tell({"end": True})
    except MemoryError:
        _tell({"error": "memory"})
    except BaseException as error:  # a panic of the Rust reader is no Exception
        _tell({"error": "password" if type(error).__name__ == "PasswordError" else "damaged"})
    sys.stdout.flush()


def _workbook(data: bytes, write: Callable[[object], object]) -> None:
    from python_calamine import CalamineWorkbook, SheetTypeEnum, SheetVisibleEnum

    with CalamineWorkbook.from_filelike(io.BytesIO(data)) as workbook:
        for about in workbook.sheets_metadata:
            if about.typ is not SheetTypeEnum.WorkSheet:
                continue
            _tell({"sheet": about.name, "hidden": about.visible is not SheetVisibleEnum.Visible})
            sheet = workbook.get_sheet_by_name(about.name)
            left = [""] * (sheet.start[1] if sheet.start else 0)
            _tell_rows(_filled(left + row for row in sheet.iter_rows()), write)


def _parquet(data: bytes, write: Callable[[object], object]) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.set_memory_pool(pyarrow.system_memory_pool())  # the others reserve more than they use
    file = pyarrow.parquet.ParquetFile(io.BytesIO(data))
    _tell({"rows": file.metadata.num_rows})
    _tell({"sheet": None, "hidden": False})
    batches = file.iter_batches(batch_size=1024, use_threads=False)
    _tell_rows(enumerate(chain.from_iterable(batch.to_pylist() for batch in batches), start=1), write)


def _filled(rows: Iterable[list[Any]]) -> Iterator[tuple[int, list[Any]]]:
    """The numbered rows without their empty ends; none that is empty throughout."""
    for number, cells in enumerate(rows, start=1):
        while cells and cells[-1] == "":
            cells.pop()
        if cells:
            yield number, cells


def _tell_rows(rows: Iterable[tuple[int, Any]], write: Callable[[object], object]) -> None:
    remaining = iter(rows)
    while some := list(islice(remaining, _TOGETHER)):
        _tell(some, write)


def _tell(value: Any, write: Callable[[object], object] | None = None) -> None:
    # As UTF-8: a Cyrillic letter written as \u0416 takes three times the room, and three times as long to read.
    line = json.dumps(value, default=write, ensure_ascii=False)
    sys.stdout.buffer.write(line.encode("utf-8", "surrogatepass") + b"\n")


def _as_value(value: object) -> object:
    """A day or time as Excel stores it, the days since 1899-12-30, with its format; as text where it cannot."""
    match value:
        case datetime.datetime():
            moment, code = value, "yyyy-mm-dd hh:mm:ss" if value.time() != datetime.time() else "yyyy-mm-dd"
        case datetime.date():
            moment, code = datetime.datetime.combine(value, datetime.time()), "yyyy-mm-dd"
        case datetime.time():
            return [(datetime.datetime.combine(_EPOCH, value) - _EPOCH) / _DAY, "hh:mm:ss"]
        case datetime.timedelta() if value >= datetime.timedelta():
            return [value / _DAY, "[h]:mm:ss"]
        case _:
            return _as_text(value)
    return [(moment - _EPOCH) / _DAY, code] if moment >= _FIRST_SURE else _as_text(value)


def _as_text(value: object) -> str:
    """Midnight of a day -> "2024-03-12", other times with the clock; a day and a half -> "36:00:00"."""
    match value:
        case datetime.datetime():
            midnight = value.time() == datetime.time()
            return value.date().isoformat() if midnight else value.isoformat(sep=" ")
        case datetime.date() | datetime.time():
            return value.isoformat()
        case datetime.timedelta():
            seconds = round(abs(value).total_seconds())
            sign = "-" if value < datetime.timedelta() else ""
            return f"{sign}{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        case bytes():
            return value.decode("utf-8", errors="replace")
    return str(value)


if __name__ == "__main__":
    main()
