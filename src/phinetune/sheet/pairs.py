"""A table file -> question/answer pairs, and an account of everything that is not one.

find_pairs("faq.xlsx")  ->  PairTable(pairs=(Pair("When …?", "At nine.", row=5), …),
                                      skipped=(Skipped(9, "question without an answer"), …),
                                      warnings=(SheetWarning("few_pairs", …), …), …)
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from phinetune.errors import SheetError
from phinetune.sheet.columns import choose_columns
from phinetune.sheet.findings import (
    Pair,
    Skipped,
    Trouble,
    counted,
    place,
    quoted,
    warn_of_empty,
    warn_of_rows,
    warn_of_skipped,
)
from phinetune.sheet.header import Columns
from phinetune.sheet.lengths import warn_of_lengths
from phinetune.sheet.limits import refuse_long_texts
from phinetune.sheet.placeholders import is_filler, is_placeholder, warn_of_likely_placeholders
from phinetune.sheet.read import read_hashed
from phinetune.sheet.repeats import warn_of_repeats
from phinetune.sheet.table import (
    ErrorCell,
    OwnFormat,
    Row,
    SheetWarning,
    UnknownFormat,
    UnstoredFormula,
    clean_text,
)
from phinetune.sheet.texts import warn_of_texts
from phinetune.sheet.verdict import warn_of_few

# Rows read beside the pairs that are wanted, and how many times as many where they did not do.
_BESIDES, _MORE = 1000, 4


class Source(NamedTuple):
    """Where a pair stands: its whole row, and which of its columns were read."""

    columns: Columns
    row: Row


@dataclass
class _Found:
    """What was found so far. `gaps` are empty rows between others, which readers leave out."""

    pairs: list[Pair] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    gaps: list[tuple[str | None, Sequence[int]]] = field(default_factory=list)
    own_format: list[Pair] = field(default_factory=list)
    unknown_format: list[Pair] = field(default_factory=list)


@dataclass(frozen=True)
class PairTable:
    """The pairs of a file, where they come from and what was passed over. Each pair has its place in `sources`;
    `sha256` is that of the file as it was read.
    """

    file: str
    sha256: str
    sheet: str | list[str] | None
    header_row: int | None
    question_column: str
    answer_column: str
    ignored_columns: tuple[str, ...]
    pairs: tuple[Pair, ...]
    skipped: tuple[Skipped, ...]
    warnings: tuple[SheetWarning, ...]
    sources: tuple[Source, ...]

    def to_json(self) -> dict[str, Any]:
        """The account as JSON values; `pairs` is their number. Rows name their sheets if there are several."""
        several = isinstance(self.sheet, list)
        return {
            "file": self.file,
            "sheet": self.sheet,
            "header_row": self.header_row,
            "question_column": self.question_column,
            "answer_column": self.answer_column,
            "ignored_columns": list(self.ignored_columns),
            "pairs": len(self.pairs),
            "skipped": [
                {"row": skipped.row, "reason": str(skipped.reason)} | ({"sheet": skipped.sheet} if several else {})
                for skipped in self.skipped
            ],
            "warnings": [
                {"code": warning.code, "message": warning.message, "rows": list(warning.rows)}
                | ({"sheets": list(warning.sheets)} if several else {})
                for warning in self.warnings
            ],
        }


def find_pairs(
    path: str | Path,
    *,
    question: str | None = None,
    answer: str | None = None,
    sheet: str | None = None,
    limit: int | None = None,
) -> PairTable:
    """The pairs of a table file; `limit` keeps the first so many.

    What follows them is not looked at, and of a large file not read.

    `question` and `answer` name the columns by header, letter or number, `sheet` the sheet; left out, all three
    are found. Raises SheetError when the file, the sheet, a column or every single pair is missing.
    """
    path = Path(path)
    with _without_looking_for_cycles():
        return _find_pairs(path, question, answer, sheet, limit)


def _find_pairs(
    path: Path, question: str | None, answer: str | None, sheet: str | None, limit: int | None
) -> PairTable:
    rows = None if limit is None else limit + _BESIDES
    while True:
        tables, sha256 = read_hashed(path, rows)
        chosen, warnings = choose_columns(tables, question=question, answer=answer, sheet=sheet)
        found = _judge_all(chosen, limit, path.name)
        if rows is None or len(found.pairs) == limit or not any(columns.table.cut for columns in chosen):
            break
        rows *= _MORE
    pairs, skipped = found.pairs, found.skipped
    sheets = [columns.table.name for columns in chosen if columns.table.name is not None]
    if not pairs:
        raise _no_pairs(path.name, chosen[0], skipped)
    return PairTable(
        file=path.name,
        sha256=sha256,
        sheet=sheets if len(sheets) > 1 else next(iter(sheets), None),
        header_row=chosen[0].header.row,
        question_column=chosen[0].question_name,
        answer_column=chosen[0].answer_name,
        ignored_columns=tuple(dict.fromkeys(name for columns in chosen for name in columns.ignored)),
        pairs=tuple(pairs),
        sources=tuple(found.sources),
        skipped=tuple(row for row in skipped if row.trouble is not Trouble.EMPTY),
        warnings=(
            *(
                replace(warning, sheets=(columns.table.name,) * len(warning.rows))
                for columns in chosen
                for warning in columns.table.warnings
            ),
            *warnings,
            *warn_of_empty([*found.gaps, *((row.sheet, [row.row]) for row in skipped if row.trouble is Trouble.EMPTY)]),
            *warn_of_skipped(skipped),
            *_warn_of_formats(found.own_format),
            *_warn_of_unknown_formats(found.unknown_format, path.suffix or "this kind of file"),
            *warn_of_few(len(pairs)),
            *warn_of_repeats(pairs),
            *warn_of_likely_placeholders(pairs),
            *warn_of_texts(pairs, len(pairs) + len(skipped)),
            *warn_of_lengths(pairs),
        ),
    )


def _warn_of_formats(found: Sequence[Pair]) -> list[SheetWarning]:
    if not found:
        return []
    message = (
        f"{counted(len(found), 'answer')} {'is a number or date' if len(found) == 1 else 'are numbers or dates'} "
        "that the sheet shows in a format of its own. Training uses what is stored, such as "
        f"{quoted(found[0].answer)} ({place(found[0])}): write it as text if the form matters."
    )
    notes = [(pair, f"stored as {quoted(pair.answer)}, and shown in a format of its own") for pair in found]
    return [warn_of_rows("own_format", message, notes)]


def _warn_of_unknown_formats(found: Sequence[Pair], kind: str) -> list[SheetWarning]:
    if not found:
        return []
    message = (
        f"{counted(len(found), 'answer')} {'is a number' if len(found) == 1 else 'are numbers'}, read as stored, such "
        f"as {quoted(found[0].answer)} ({place(found[0])}): how the sheet shows them (percents, leading zeros, "
        f"decimals, amounts) is not read from {kind}. Save it as .xlsx, or write them as text, if the form matters."
    )
    return [warn_of_rows("unknown_format", message, [(pair, f"stored as {quoted(pair.answer)}") for pair in found])]


def _judge_all(chosen: Sequence[Columns], limit: int | None, file: str) -> _Found:
    """What the rows hold, as far as the pair that is the last one wanted."""
    found, size = _Found(), 0
    for columns in chosen:
        before = columns.header.row
        for row in columns.header.data:
            if len(found.pairs) == limit:
                return found
            if before is not None and row.number > before + 1:
                found.gaps.append((columns.table.name, range(before + 1, row.number)))
            before = row.number
            judged = _judge(row, columns)
            if isinstance(judged, Skipped):
                found.skipped.append(judged)
                continue
            found.pairs.append(judged)
            found.sources.append(Source(columns, row))
            size += len(judged.question.encode()) + len(judged.answer.encode())
            if isinstance(row.cell(columns.answer), OwnFormat):
                found.own_format.append(judged)
            elif isinstance(row.cell(columns.answer), UnknownFormat):
                found.unknown_format.append(judged)
    refuse_long_texts(size, file)
    return found


@contextmanager
def _without_looking_for_cycles() -> Iterator[None]:
    """Rows and pairs lead to nothing that leads back; among 100,000 of them the search took a tenth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _judge(row: Row, columns: Columns) -> Pair | Skipped:
    sheet = columns.table.name
    asked = [row.cell(column) for column in columns.question]
    told = row.cell(columns.answer)
    for cell, side in (*((cell, "question") for cell in asked), (told, "answer")):
        if isinstance(cell, ErrorCell):
            return Skipped(row.number, Trouble.ERROR, f"error value {cell.text} in the {side}", sheet)
        if isinstance(cell, UnstoredFormula):
            trouble = Trouble.UNSTORED_ANSWER if side == "answer" else Trouble.UNSTORED_QUESTION
            return Skipped(row.number, trouble, trouble, sheet)
    question, answer = "\n\n".join(filter(None, map(clean_text, asked))), clean_text(told)
    if not question or not answer:
        trouble = Trouble.NO_ANSWER if question else Trouble.NO_QUESTION if answer else Trouble.EMPTY
        return Skipped(row.number, trouble, trouble, sheet)
    for text, side, beside in ((question, "question", ""), (answer, "answer", question)):
        if is_placeholder(text) or is_filler(text, beside):
            return Skipped(row.number, Trouble.PLACEHOLDER, f"placeholder {quoted(text)} as the {side}", sheet)
    return Pair(question, answer, row.number, sheet)


def _no_pairs(file: str, columns: Columns, skipped: Sequence[Skipped]) -> SheetError:
    counts = Counter(found.trouble for found in skipped if found.trouble is not Trouble.EMPTY)
    formulas = counts[Trouble.UNSTORED_ANSWER] or counts[Trouble.UNSTORED_QUESTION]
    where = f"{file}" + (f', sheet "{columns.table.name}"' if columns.table.name else "")
    if formulas:
        what = "answers" if counts[Trouble.UNSTORED_ANSWER] else "questions"
        return SheetError(
            f"{where}: {formulas} {what} are formulas without a stored result, and there is no pair beside them.",
            "Open the file in Excel, save it, and try again: Excel then stores the results.",
        )
    header = f" in row {columns.header.row}" if columns.header.row else ""
    reasons = f" Skipped: {', '.join(f'{count} × {trouble}' for trouble, count in counts.items())}." if counts else ""
    return SheetError(
        f'{where}: the columns "{columns.question_name}" and "{columns.answer_name}" were found{header}, '
        f"but there is no question/answer pair below.{reasons}",
        "Fill in a question and its answer in every row below the header.",
    )
