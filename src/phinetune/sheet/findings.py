"""Pairs, and rows that are none: what both are called, and how a warning speaks of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import islice
from textwrap import shorten

from phinetune.sheet.clean import normalize_question
from phinetune.sheet.personal_data import hide_personal
from phinetune.sheet.table import RowNote, SheetWarning

_NAMED = 3
_QUOTED = 60  # characters
_MOST_EMPTY_ROWS_NAMED = 20


@dataclass(frozen=True)
class Pair:
    question: str
    answer: str
    row: int
    sheet: str | None = None

    @cached_property
    def asked(self) -> str:
        """The question as it is compared with others."""
        return normalize_question(self.question)

    @cached_property
    def told(self) -> str:
        """The answer as it is compared with others."""
        return normalize_question(self.answer)


class Trouble(StrEnum):
    """Why a row is no pair, in a person's words."""

    EMPTY = "empty row"
    NO_ANSWER = "question without an answer"
    NO_QUESTION = "answer without a question"
    ERROR = "error value"
    UNSTORED_QUESTION = "the question is a formula without a stored result"
    UNSTORED_ANSWER = "the answer is a formula without a stored result"
    PLACEHOLDER = "placeholder instead of text"


@dataclass(frozen=True)
class Skipped:
    row: int
    trouble: Trouble
    reason: str
    sheet: str | None = None


_STORE_RESULTS = "Open the file in Excel and save it to use them."
# A spreadsheet stores the text of merged cells in the first of them.
_MERGED = "If the question is a merged cell, write it in every row."
_SAID = {
    Trouble.NO_ANSWER: ("questions_without_answer", "a question without an answer", ""),
    Trouble.NO_QUESTION: ("answers_without_question", "an answer without a question", _MERGED),
    Trouble.ERROR: ("error_cells", "an error value such as #N/A", "Correct the formula or write the text itself."),
    Trouble.UNSTORED_QUESTION: ("unstored_questions", "a formula without a stored result", _STORE_RESULTS),
    Trouble.UNSTORED_ANSWER: ("unstored_answers", "a formula without a stored result", _STORE_RESULTS),
    Trouble.PLACEHOLDER: ("placeholders", 'a placeholder such as "n/a" instead of text', ""),
}
CODES_OF_SKIPPED = {trouble: code for trouble, (code, _, _) in _SAID.items()}


def warn_of_skipped(skipped: Sequence[Skipped]) -> list[SheetWarning]:
    """One warning for each kind of trouble, naming its rows."""
    return [
        SheetWarning(
            code,
            f"Skipped {counted(len(found), 'row')} with {what}. {remedy}".strip(),
            rows=tuple(row.row for row in found),
            sheets=tuple(row.sheet for row in found),
        )
        for trouble, (code, what, remedy) in _SAID.items()
        if (found := [row for row in skipped if row.trouble is trouble])
    ]


def warn_of_empty(gaps: Sequence[tuple[str | None, Sequence[int]]]) -> list[SheetWarning]:
    """One warning for all empty rows between others, each gap with its sheet; of many it names the first."""
    count = sum(len(gap) for _, gap in gaps)
    if not count:
        return []
    first = list(islice(((sheet, row) for sheet, gap in gaps for row in gap), _MOST_EMPTY_ROWS_NAMED))
    what = "row was" if count == 1 else "rows were"
    message = f"{count:,} empty {what} passed over."
    rows, sheets = tuple(row for _, row in first), tuple(sheet for sheet, _ in first)
    return [SheetWarning("empty_rows", message, rows, sheets=sheets)]


def warn_of_rows(code: str, message: str, found: Iterable[tuple[Pair, str]]) -> SheetWarning:
    """One warning for the pairs found, each with what is to be said of its row."""
    return warn_of_notes(code, message, sorted((RowNote(pair.row, text, pair.sheet) for pair, text in found), key=_row))


def warn_of_notes(code: str, message: str, notes: Sequence[RowNote]) -> SheetWarning:
    """One warning for the rows of these notes."""
    rows, sheets = tuple(note.row for note in notes), tuple(note.sheet for note in notes)
    return SheetWarning(code, message, rows, tuple(notes), sheets)


def examples(pairs: Sequence[Pair]) -> str:
    """The first few questions with their rows, for a message."""
    return ", ".join(f"{quoted(pair.question)} ({place(pair)})" for pair in pairs[:_NAMED])


def quoted(text: str) -> str:
    """The beginning of a text in quotation marks, without personal data."""
    shown = " ".join(hide_personal(text).split())
    # Where nothing is to be left out, textwrap takes ten times as long to find that out.
    return f'"{shown if len(shown) <= _QUOTED else shorten(shown, _QUOTED, placeholder=" …")}"'


def place(pair: Pair) -> str:
    return f"row {pair.row}" if pair.sheet is None else f"{pair.sheet}, row {pair.row}"


def counted(count: int, name: str) -> str:
    """ "1 row", "2,000 rows"."""
    return f"{count:,} {name}{'' if count == 1 else 's'}"


def _row(note: RowNote) -> int:
    return note.row
