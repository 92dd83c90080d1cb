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
from dataclasses import dataclass, field
from itertools import islice

from phinetune.errors import SheetError
from phinetune.sheet.limits import refuse_many_cells, refuse_many_rows
from phinetune.sheet.table import SheetWarning, Table, make_rows

_SEPARATORS = {"\t": "tab", ";": "semicolon", ",": "comma", "|": "bar"}
_SAMPLE_RECORDS = 200
_END = "\x1e"
_BLOCK = 1 << 20  # letters that are cut into lines at a time: StringIO takes four bytes for each


@dataclass
class _Records:
    """Numbered records without their empty ends, and those that are empty throughout left out; how many of each width
    there were with them; and whether there are more, which were not wanted."""

    numbered: list[tuple[int, list[str]]] = field(default_factory=list)
    widths: Counter[int] = field(default_factory=Counter)
    cut: bool = False


def delimited_table(text: str, file: str, most: int | None = None) -> Table:
    """The table, of `most` rows where that is said.

    Raises SheetError when a quotation mark is never closed, or there are too many rows or cells.
    """
    text, declared = _separator_line(text)
    text = text.rstrip()
    separator = declared or max(_SEPARATORS, key=lambda candidate: _evenness(text, candidate))
    records = _records(text, separator, csv.QUOTE_MINIMAL, file, most)
    if records is None:
        records = _unquoted_or_refuse(text, separator, file, most)
    rows = make_rows(records.numbered)
    return Table(name=None, rows=rows, warnings=_overlong(records, separator), cut=records.cut)


def _separator_line(text: str) -> tuple[str, str | None]:
    """Excel lets a first line "sep=;" name the separator, and does not count that line."""
    if text[:4].lower() != "sep=":
        return text, None
    first, _, rest = text.partition("\n")
    separator = first.strip("\r\n")[4:]
    return (rest, separator) if len(separator) == 1 else (text, None)


def _reader(text: str, separator: str, quoting: int, *, ended: bool = False) -> Iterator[list[str]]:
    """The records; `ended`: and one more of a sign of ours, which an open quotation mark would swallow."""
    quote = '"' if quoting == csv.QUOTE_MINIMAL else None
    return csv.reader(
        _lines(text, f"\n{_END}" if ended else ""),
        delimiter=separator,
        quoting=quoting,  # type: ignore[arg-type]
        quotechar=quote,
        skipinitialspace=True,
    )


def _lines(text: str, end: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        stop = text.find("\n", start + _BLOCK) + 1 or len(text)
        yield from io.StringIO(text[start:stop] + (end if stop == len(text) else ""), newline="")
        start = stop


def _evenness(text: str, separator: str) -> float:
    """Share of the first records that have the commonest number of cells, 0 when that is one cell."""
    try:
        records = list(islice(_reader(text, separator, csv.QUOTE_MINIMAL), _SAMPLE_RECORDS))
    except csv.Error:
        return 0.0
    widths = Counter(len(record) for record in records if record)
    split = [(count, width) for width, count in widths.items() if width > 1]
    return max(split)[0] / widths.total() if split else 0.0


def _records(text: str, separator: str, quoting: int, file: str, most: int | None) -> _Records | None:
    """All records, or None when an open quotation mark swallowed the rest of the file."""
    found, cells = _Records(), 0
    try:
        for number, record in enumerate(_reader(text, separator, quoting, ended=True), start=1):
            if record == [_END]:
                return found
            if most is not None and len(found.numbered) >= most:
                found.cut = True
                return found
            cells += len(record) or 1
            refuse_many_cells(cells, file)
            if record:
                found.widths[len(record)] += 1
            while record and not record[-1]:
                record.pop()
            if record:
                found.numbered.append((number, record))
                refuse_many_rows(len(found.numbered), file)
    except csv.Error:
        return None
    return None


def _unquoted_or_refuse(text: str, separator: str, file: str, most: int | None) -> _Records:
    """Some programs mean every quotation mark literally: then the columns come out even without quoting."""
    records = _records(text, separator, csv.QUOTE_NONE, file, most)
    if records and len(records.widths) == 1:
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


def _overlong(records: _Records, separator: str) -> tuple[SheetWarning, ...]:
    if not records.widths:
        return ()
    usual = records.widths.most_common(1)[0][0]
    rows = tuple(
        number
        for number, record in records.numbered
        if len(record) > usual and any(cell.strip() for cell in record[usual:])
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
