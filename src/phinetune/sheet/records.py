"""JSON, JSON lines and Parquet -> tables whose columns are named by the format itself.

{"question": "Who?", "answer": "We."}                                ->  columns question, answer
{"messages": [{"role": "user", …}, {"role": "assistant", …}, …]}     ->  messages[user], messages[assistant]
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from phinetune.errors import SheetError
from phinetune.sheet.apart import rows_apart
from phinetune.sheet.chat import CHAT_KEYS, is_chat, read_exchanges
from phinetune.sheet.limits import MOST_CELLS, MOST_CONTAINERS, refuse_many_rows, too_large, too_much
from phinetune.sheet.table import Table, make_rows

Numbered = list[tuple[int, Any]]

# An escape for half a letter, which no file can be written with; the halves of one letter belong together, and after
# two backslashes it is no escape.
_HALVES = re.compile(
    r"\\\\|(?P<whole>\\u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2})|\\u[dD][89a-fA-F][\da-fA-F]{2}"
)

_JSON_START = re.compile(r"""\s*(\{\s*["}]|\[\s*[\[{"\]])""")


def looks_like_json(text: str) -> bool:
    return _JSON_START.match(text) is not None


def json_tables(text: str, file: str, most: int | None = None) -> list[Table]:
    """A list of records or rows, a record of columns, a record holding such lists, or one record a line; the first
    `most` of each where that is said.

    Raises SheetError naming the line that is not valid JSON, or when there are too many records or names in them.
    """
    _refuse_many_values(text, file)
    text = _HALVES.sub(_whole, text)
    try:
        return [_table_of(name, records, file, most) for name, records in _parts_of(json.loads(text))]
    except (ValueError, RecursionError) as error:
        lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
        if len(lines) < 2 or not _is_json(lines[0][1]):
            line = error.lineno if isinstance(error, json.JSONDecodeError) else 1
            raise _invalid(file, line) from None
    wanted = lines[:most]
    refuse_many_rows(len(wanted), file)
    try:
        records = [(number, _parse_line(line, number, file)) for number, line in wanted]
        return [replace(_table_of(None, records, file, most), cut=len(wanted) < len(lines))]
    except RecursionError:
        raise _invalid(file, 1) from None


def parquet_table(data: bytes, file: str, most: int | None = None) -> Table:
    """Raises SheetError when the file is damaged or too large."""
    [part] = rows_apart("parquet", data, file, most)
    return replace(_table_of(None, part.rows, file, most), cut=part.cut)


def _refuse_many_values(text: str, file: str) -> None:
    """By the signs between them, also those within texts: values are not to be made before they are counted."""
    if text.count("[") + text.count("{") > MOST_CONTAINERS:
        raise too_large(file, f"it has more than {MOST_CONTAINERS:,} lists and records")
    if text.count(",") > MOST_CELLS:
        raise too_large(file, f"it has more than {MOST_CELLS:,} values")


def _whole(match: re.Match[str]) -> str:
    is_half = match["whole"] is None and match[0] != "\\\\"
    return "\\ufffd" if is_half else match[0]


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _parse_line(line: str, number: int, file: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise _invalid(file, number) from None


def _invalid(file: str, line: int) -> SheetError:
    return SheetError(
        f"{file}, line {line}: this is not valid JSON.",
        "Correct that line, or export the questions and answers again as .xlsx, .csv or .jsonl.",
    )


def _parts_of(value: Any) -> list[tuple[str | None, Numbered]]:
    """The tables in it, each with its name and its numbered records."""
    if isinstance(value, list):
        return [(None, list(enumerate(value, start=1)))]
    if not isinstance(value, dict):
        return []
    if isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):
        return [(None, list(enumerate([value["columns"], *value["data"]], start=1)))]
    if any(key in value and is_chat(value[key]) for key in CHAT_KEYS):
        return [(None, [(1, value)])]
    lists = {key: part for key, part in value.items() if _holds(part, dict | list)}
    if lists:
        only_one = len(lists) == 1
        return [(None if only_one else key, list(enumerate(part, start=1))) for key, part in lists.items()]
    columns = {key: _column_values(part) for key, part in value.items()}
    if all(column is not None for column in columns.values()):
        height = max((len(column) for column in columns.values() if column), default=0)
        records = [
            {key: column[row] for key, column in columns.items() if column and row < len(column)}
            for row in range(height)
        ]
        return [(None, list(enumerate(records, start=1)))]
    return [(None, [(1, value)])]


def _holds(part: Any, kind: Any) -> bool:
    return isinstance(part, list) and bool(part) and all(isinstance(element, kind) for element in part)


def _column_values(part: Any) -> Sequence[Any] | None:
    """A column is a list, or a record from row labels to values."""
    if isinstance(part, list):
        return part
    return list(part.values()) if isinstance(part, dict) else None


def _table_of(name: str | None, records: Numbered, file: str, most: int | None) -> Table:
    table = _table_of_all(name, records[:most], file)
    return table if most is None else replace(table, cut=len(records) > most)


def _table_of_all(name: str | None, records: Numbered, file: str) -> Table:
    refuse_many_rows(len(records), file)
    if records and all(isinstance(record, Mapping) for _, record in records):
        return _table_of_records(name, records, file)
    # Bare lists or texts: as in a spreadsheet, the first may be the header.
    return Table(
        name, make_rows((number, record if isinstance(record, list) else [record]) for number, record in records)
    )


def _table_of_records(name: str | None, records: Numbered, file: str) -> Table:
    columns = list(dict.fromkeys(str(key) for _, record in records for key in record))
    if len(columns) * len(records) > MOST_CELLS:
        raise too_much(file, f"its {len(records):,} records have {len(columns):,} different names")
    chat = next((key for key in CHAT_KEYS if any(is_chat(record.get(key)) for _, record in records)), None)
    if chat is None:
        rows = make_rows((number, [record.get(column) for column in columns]) for number, record in records)
        return Table(name, rows, tuple(columns))
    exchanges, warnings = read_exchanges((number, record.get(chat)) for number, record in records)
    others = [column for column in columns if column != chat]
    rows = make_rows(
        (number, [exchange.question, exchange.answer, *(record.get(column) for column in others)])
        for (number, record), exchange in zip(records, exchanges, strict=True)
    )
    return Table(name, rows, (f"{chat}[user]", f"{chat}[assistant]", *others), warnings)
