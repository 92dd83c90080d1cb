"""What a person should know about the rows of their sheet before training on them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, islice
from textwrap import shorten

from phinetune.sheet.clean import normalize_question
from phinetune.sheet.table import SheetWarning

_FEW_PAIRS = 100
_FAR_TOO_FEW_PAIRS = 10
_NAMED = 3
_MOST_EMPTY_ROWS_NAMED = 20


@dataclass(frozen=True)
class Pair:
    question: str
    answer: str
    row: int
    sheet: str | None = None


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
_SAID = {
    Trouble.NO_ANSWER: ("questions_without_answer", "a question without an answer", ""),
    Trouble.NO_QUESTION: ("answers_without_question", "an answer without a question", ""),
    Trouble.ERROR: ("error_cells", "an error value such as #N/A", "Correct the formula or write the text itself."),
    Trouble.UNSTORED_QUESTION: ("unstored_questions", "a formula without a stored result", _STORE_RESULTS),
    Trouble.UNSTORED_ANSWER: ("unstored_answers", "a formula without a stored result", _STORE_RESULTS),
    Trouble.PLACEHOLDER: ("placeholders", 'a placeholder such as "n/a" instead of text', ""),
}


def warn_of_skipped(skipped: Sequence[Skipped]) -> list[SheetWarning]:
    """One warning for each kind of trouble, naming its rows."""
    rows: defaultdict[Trouble, list[int]] = defaultdict(list)
    for found in skipped:
        rows[found.trouble].append(found.row)
    return [
        SheetWarning(
            code, f"Skipped {_counted(rows[trouble], 'row')} with {what}. {remedy}".strip(), tuple(rows[trouble])
        )
        for trouble, (code, what, remedy) in _SAID.items()
        if rows[trouble]
    ]


def warn_of_empty(gaps: Sequence[Sequence[int]]) -> list[SheetWarning]:
    """One warning for all empty rows between others; of many it names the first."""
    count = sum(map(len, gaps))
    if not count:
        return []
    first = tuple(islice(chain.from_iterable(gaps), _MOST_EMPTY_ROWS_NAMED))
    what = "row was" if count == 1 else "rows were"
    return [SheetWarning("empty_rows", f"{count:,} empty {what} passed over.", first)]


def warn_of_pairs(pairs: Sequence[Pair]) -> list[SheetWarning]:
    """Too few of them, the same pair again, and one question with several answers."""
    return [*_few(len(pairs)), *_duplicates(pairs), *_conflicts(pairs)]


def _few(count: int) -> list[SheetWarning]:
    if count >= _FEW_PAIRS:
        return []
    there = "There is only 1 pair" if count == 1 else f"There are only {count} pairs"
    if count < _FAR_TOO_FEW_PAIRS:
        message = f"{there}, far too few to learn from: expect it to learn them by heart at best."
    else:
        message = f"{there}; a model learns a subject from some {_FEW_PAIRS} or more."
    return [SheetWarning("few_pairs", message)]


def _duplicates(pairs: Sequence[Pair]) -> list[SheetWarning]:
    seen: set[tuple[str, str]] = set()
    again = []
    for pair in pairs:
        if (pair.question, pair.answer) in seen:
            again.append(pair)
        seen.add((pair.question, pair.answer))
    if not again:
        return []
    like_earlier = f"{_counted(again, 'pair')} word for word like an earlier one, such as {_examples(again)}"
    message = f"{like_earlier}. They are used, and weigh more."
    return [SheetWarning("duplicate_pairs", message, tuple(pair.row for pair in again))]


def _conflicts(pairs: Sequence[Pair]) -> list[SheetWarning]:
    asked: defaultdict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        asked[normalize_question(pair.question)].append(pair)
    conflicts = [group for group in asked.values() if len({pair.answer for pair in group}) > 1]
    if not conflicts:
        return []
    message = (
        f"{_counted(conflicts, 'question')} answered in different ways, such as "
        f"{_examples([group[0] for group in conflicts])}. The model will waver between them."
    )
    return [
        SheetWarning("conflicting_answers", message, tuple(sorted(pair.row for group in conflicts for pair in group)))
    ]


def _examples(pairs: Sequence[Pair]) -> str:
    return ", ".join(f'"{shorten(pair.question, 60, placeholder=" …")}" ({_place(pair)})' for pair in pairs[:_NAMED])


def _place(pair: Pair) -> str:
    return f"row {pair.row}" if pair.sheet is None else f"{pair.sheet}, row {pair.row}"


def _counted(things: Sequence[object], name: str) -> str:
    return f"{len(things):,} {name}{'' if len(things) == 1 else 's'}"
