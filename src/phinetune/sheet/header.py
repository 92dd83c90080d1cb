"""Where the header of one table stands and which of its columns are the question and the answer.

row 1  Front desk FAQ                          title
row 4  No. | Topic | Question | Best Answer    header: Question by its name, Best Answer by a similar one
row 5  1   | hours | When …?  | At nine.       pairs begin
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice

from phinetune.sheet.clean import clean
from phinetune.sheet.content import is_text, judge
from phinetune.sheet.header_names import (
    ANSWER,
    CONTEXT_NAMES,
    INSTRUCTION_NAMES,
    QUESTION,
    Likeness,
    Role,
    normalize_name,
    rate,
)
from phinetune.sheet.personal_data import find_personal, hide_personal
from phinetune.sheet.table import Row, Table

# Titles, notes and logos above the header take a few rows, seldom more than ten.
_SEARCH_ROWS = 30
_HEADER_LENGTH = 60
_NAME_WORDS, _NAME_SIGNS = 3, 8  # a name that ends like a sentence has no more
_LONGEST_SHOWN = 200  # characters
_LOOKED_AT = 1000  # a title may be megabytes; this is more than any address that begins in what is shown
_SENTENCE_ENDS = (".", "?", "!", "。", "？", "！", "؟", "…")


class Certainty(IntEnum):
    """How the two columns were found, the surest last."""

    GUESSED = 1
    SIMILAR_NAMES = 2
    NAMES = 3
    BY_HAND = 4


@dataclass(frozen=True)
class Header:
    """A row of a table read as its header; `row` is None where the format names the columns or nothing does."""

    labels: tuple[str, ...]
    row: int | None
    data: Sequence[Row]

    def label(self, column: int) -> str:
        """What to call the column where that is shown: the beginning of its title, without personal data."""
        shown = hide_personal(self.title(column)[:_LOOKED_AT])
        return shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}…"

    def title(self, column: int) -> str:
        """The header of the column, or its letter where it has none."""
        return self.labels[column] if column < len(self.labels) and self.labels[column] else letter(column)

    @property
    def width(self) -> int:
        return max([len(self.labels), *(len(row.cells) for row in self.data[:_SEARCH_ROWS])])


@dataclass(frozen=True)
class Columns:
    """The two columns of one table. `question` is two columns where an instruction has an input beside it."""

    table: Table
    header: Header
    question: tuple[int, ...]
    answer: int
    certainty: Certainty

    @property
    def question_name(self) -> str:
        return " + ".join(map(self.header.label, self.question))

    @property
    def answer_name(self) -> str:
        return self.header.label(self.answer)

    @property
    def names(self) -> tuple[str, str]:
        """Equal for tables that have the same header."""
        return normalize_name(self.question_name), normalize_name(self.answer_name)

    @property
    def above(self) -> tuple[Row, ...]:
        """Rows above the header with a text in both columns: pairs, if the header is none."""
        if self.header.row is None:
            return ()
        rows = (row for row in self.table.rows if row.number < self.header.row)
        return tuple(row for row in rows if all(_holds_text(row, column) for column in (self.question[0], self.answer)))

    @property
    def ignored(self) -> tuple[str, ...]:
        """The other columns that have a name or hold something."""
        used = {*self.question, self.answer}
        return tuple(
            self.header.label(column)
            for column in range(self.header.width)
            if column not in used
            and (any(self.header.labels[column : column + 1]) or judge(self.header.data, column).filled)
        )


def candidates(table: Table) -> Iterator[Header]:
    """Every row that may be the header, top down."""
    if table.columns is not None:
        yield Header(tuple(map(clean, table.columns)), None, table.rows)
        return
    for index, row in enumerate(islice(table.rows, _SEARCH_ROWS)):
        yield Header(_labels(row), row.number, table.rows[index + 1 :])


def find_columns(table: Table) -> Columns | None:
    """The columns by their names, or else the first two that hold text; None when there are not two."""
    return _by_name(table) or _by_content(table)


def likely_header(table: Table) -> Header:
    """The header of a table whose columns have no telling names: the first row with two texts, if it reads like one."""
    first = _first_wide(table)
    return first if table.columns is not None or _reads_like_header(first) else Header((), None, table.rows)


def text_columns(header: Header) -> list[int]:
    """Columns of text, those that only label the row (a category) left out if two others remain."""
    contents = {column: judge(header.data, column) for column in range(header.width)}
    texts = [column for column, content in contents.items() if content.is_text]
    free = [column for column in texts if not contents[column].is_label]
    return free if len(free) > 1 else texts


def best_column(header: Header, role: Role, other: Role) -> tuple[Likeness, int]:
    """The column that names `role` best, and how well. A header that speaks of both roles counts for neither."""

    def merit(column: int) -> tuple[Likeness, int, int]:
        label = header.labels[column]
        if len(label) > _HEADER_LENGTH:
            return Likeness.NONE, 0, -column
        likeness, rank = rate(label, role)
        if likeness is Likeness.SIMILAR:
            holds_text = not header.data or judge(header.data, column).is_text
            is_name = _may_be_name(label) and not rate(label, other)[0]
            likeness = likeness if holds_text and is_name else Likeness.NONE
        return likeness, -rank, -column

    best = max(map(merit, range(len(header.labels))), default=(Likeness.NONE, 0, 0))
    return best[0], -best[2]


def with_context(header: Header, question: int, answer: int) -> tuple[int, ...]:
    """An instruction together with its input or context, if it has one."""
    if normalize_name(header.label(question)) not in INSTRUCTION_NAMES:
        return (question,)
    contexts = (
        column
        for column, label in enumerate(header.labels)
        if column != answer and normalize_name(label) in CONTEXT_NAMES
    )
    return (question, *islice(contexts, 1))


def letter(column: int) -> str:
    """0 -> A, 25 -> Z, 26 -> AA."""
    rest, last = divmod(column, 26)
    return (letter(rest - 1) if rest else "") + chr(ord("A") + last)


def _by_name(table: Table) -> Columns | None:
    found: tuple[int, Columns] | None = None
    for header in candidates(table):
        sure_question, question = best_column(header, QUESTION, ANSWER)
        sure_answer, answer = best_column(header, ANSWER, QUESTION)
        if not (sure_question and sure_answer) or question == answer:
            continue
        score = sure_question + sure_answer
        if found is None or score > found[0]:
            exact = score == 2 * Likeness.EXACT
            certainty = Certainty.NAMES if exact else Certainty.SIMILAR_NAMES
            columns = Columns(table, header, with_context(header, question, answer), answer, certainty)
            found = score, columns
        if score == 2 * Likeness.EXACT:
            break
    return found[1] if found else None


def _by_content(table: Table) -> Columns | None:
    """One column by its exact name and the first other text, or the first two texts."""
    header = _first_wide(table)
    for role, other in ((QUESTION, ANSWER), (ANSWER, QUESTION)):
        likeness, known = best_column(header, role, other)
        partners = [column for column in text_columns(header) if column != known]
        if likeness is Likeness.EXACT and partners:
            question, answer = (known, partners[0]) if role is QUESTION else (partners[0], known)
            return Columns(table, header, (question,), answer, Certainty.GUESSED)
    header = likely_header(table)
    texts = text_columns(header)
    return Columns(table, header, (texts[0],), texts[1], Certainty.GUESSED) if len(texts) > 1 else None


def _first_wide(table: Table) -> Header:
    """The first row with two texts: a title fills one cell only."""
    headers = list(candidates(table))
    return next((header for header in headers if sum(map(bool, header.labels)) > 1), headers[0])


def _holds_text(row: Row, column: int) -> bool:
    cell = row.cell(column)
    return isinstance(cell, str) and bool(text := clean(cell)) and is_text(text)


def _labels(row: Row) -> tuple[str, ...]:
    return tuple(clean(cell) if isinstance(cell, str) else "" for cell in row.cells)


def _may_be_name(label: str) -> bool:
    """A sentence, or what holds personal data, is the text of a pair: "Who is our typical user?"; "Your question?" is
    none. Where words are not spaced, the signs count."""
    long = len(label.split()) > _NAME_WORDS or (" " not in label and not label.isascii() and len(label) > _NAME_SIGNS)
    return not (long and label.endswith(_SENTENCE_ENDS)) and not find_personal(label)


def _reads_like_header(header: Header) -> bool:
    """Short, different names, above something longer or of another kind."""
    labels = [(column, label) for column, label in enumerate(header.labels) if label]
    if len({label for _, label in labels}) < len(labels) or not header.data:
        return False
    if any(len(label) > _HEADER_LENGTH or not _may_be_name(label) or not is_text(label) for _, label in labels):
        return False
    below = [(label, judge(header.data, column)) for column, label in labels]
    return any(
        content.filled and (not content.is_text or content.length >= 1.5 * len(label)) for label, content in below
    )
