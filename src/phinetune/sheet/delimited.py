"""Separated text (.csv, .tsv, .txt) -> a table. The separator is found by looking for even columns.

Frage;Antwort            Row(1, ("Frage", "Antwort"))
Wer?;"Wir,           ->  Row(2, ("Wer?", "Wir,\\nalle"))
alle"
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from itertools import islice

from phinetune.errors import SheetError
from phinetune.sheet.apart import MOST_ROWS, too_large
from phinetune.sheet.table import SheetWarning, Table, make_rows

_SEPARATORS = {"\t": "tab", ";": "semicolon", ",": "comma", "|": "bar"}
_SAMPLE_RECORDS = 200
_END = "\x1e"


def delimited_table(text: str, file: str) -> Table:
    """Raises SheetError when a quotation mark is never closed, or there are too many rows."""
    text, declared = _separator_line(text)
    separator = declared or max(_SEPARATORS, key=lambda candidate: _evenness(text, candidate))
    records = _records(text, separator, csv.QUOTE_MINIMAL, file)
    if records is None:
        records = _unquoted_or_refuse(text, separator, file)
    rows = make_rows(enumerate(records, start=1))
    return Table(name=None, rows=rows, warnings=_overlong(records, separator))


def _separator_line(text: str) -> tuple[str, str | None]:
    """Excel lets a first line "sep=;" name the separator, and does not count that line."""
    first, _, rest = text.partition("\n")
    name, _, separator = first.strip("\r\n").partition("=")
    return (rest, separator) if name.lower() == "sep" and len(separator) == 1 else (text, None)


def _reader(text: str, separator: str, quoting: int) -> Iterator[list[str]]:
    quote = '"' if quoting == csv.QUOTE_MINIMAL else None
    return csv.reader(
        io.StringIO(text, newline=""),
        delimiter=separator,
        quoting=quoting,  # type: ignore[arg-type]
        quotechar=quote,
        skipinitialspace=True,
    )


def _evenness(text: str, separator: str) -> float:
    """Share of the first records that have the commonest number of cells, 0 when that is one cell."""
    try:
        records = list(islice(_reader(text, separator, csv.QUOTE_MINIMAL), _SAMPLE_RECORDS))
    except csv.Error:
        return 0.0
    widths = Counter(len(record) for record in records if record)
    split = [(count, width) for width, count in widths.items() if width > 1]
    return max(split)[0] / widths.total() if split else 0.0


def _records(text: str, separator: str, quoting: int, file: str) -> list[list[str]] | None:
    """All records, or None when an open quotation mark swallowed the rest of the file."""
    try:
        records = list(islice(_reader(f"{text.rstrip()}\n{_END}", separator, quoting), MOST_ROWS + 2))
    except csv.Error:
        return None
    if len(records) > MOST_ROWS + 1:
        raise too_large(file, f"it has more than {MOST_ROWS:,} rows")
    return records[:-1] if records[-1] == [_END] else None


def _unquoted_or_refuse(text: str, separator: str, file: str) -> list[list[str]]:
    """Some programs mean every quotation mark literally: then the columns come out even without quoting."""
    records = _records(text, separator, csv.QUOTE_NONE, file)
    if records and len({len(record) for record in records if record}) == 1:
        return records
    row = _row_of_open_quote(text, separator)
    if (longest := csv.field_size_limit()) < len(text) and _is_overlong(text, separator):
        raise SheetError(
            f"{file}, row {row}: a cell is longer than {longest:,} characters.",
            "Shorten it; if it holds a quotation mark that is never closed, close it.",
        )
    raise SheetError(
        f"{file}, row {row}: a quotation mark is opened and never closed.",
        'Close it with " at the end of the cell, or write "" for a quotation mark inside a quoted cell.',
    )


def _is_overlong(text: str, separator: str) -> bool:
    """Whether the csv module gives up at a cell, rather than come to the end within one."""
    try:
        for _ in _reader(text, separator, csv.QUOTE_MINIMAL):
            pass
    except csv.Error:
        return True
    return False


def _row_of_open_quote(text: str, separator: str) -> int:
    """The last record that could be begun: it runs from the open mark to the end, or to the longest cell allowed."""
    rows = 0
    records = _reader(text, separator, csv.QUOTE_MINIMAL)
    try:
        while next(records, None) is not None:
            rows += 1
    except csv.Error:
        rows += 1
    return rows


def _overlong(records: list[list[str]], separator: str) -> tuple[SheetWarning, ...]:
    widths = Counter(len(record) for record in records if record)
    if not widths:
        return ()
    usual = widths.most_common(1)[0][0]
    rows = tuple(
        number for number, record in enumerate(records, start=1) if any(cell.strip() for cell in record[usual:])
    )
    if not rows:
        return ()
    name = _SEPARATORS.get(separator, separator)
    what = "1 row has" if len(rows) == 1 else f"{len(rows):,} rows have"
    message = (
        f"{what} more cells than the others, so text may be cut at a {name}; "
        'a cell that holds the separator must stand in "quotation marks".'
    )
    return (SheetWarning("overlong_rows", message, rows),)
