"""Which tables of a file are used, and which of their columns: found by themselves or named by hand.

Symptoms, Treatment, Research: Question | Answer      ->  all three
Notes: Date | Remark                                  ->  left out, and a warning says so
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from phinetune.errors import SheetError
from phinetune.sheet.findings import warn_of_notes
from phinetune.sheet.header import (
    Certainty,
    Columns,
    Header,
    best_column,
    candidates,
    find_columns,
    letter,
    likely_header,
    text_columns,
    with_context,
)
from phinetune.sheet.header_names import ANSWER, QUESTION, Likeness, Role, normalize_name
from phinetune.sheet.table import RowNote, SheetWarning, Table

_BY_HAND = "Name other columns with --question and --answer: by header, letter or number."

_LETTER_OR_NUMBER = re.compile(r"[A-Za-z]{1,3}|[0-9]+")


def choose_columns(
    tables: Sequence[Table], *, question: str | None = None, answer: str | None = None, sheet: str | None = None
) -> tuple[list[Columns], list[SheetWarning]]:
    """The columns of every table to use (one or more, with the same header), and what a person should know.

    Raises SheetError when a sheet or column named by hand does not exist, or when no table has two columns of text.
    """
    visible = considered(tables, sheet)
    if question is None and answer is None:
        found = [columns for table in visible if (columns := find_columns(table))]
        if not found:
            raise _too_few_columns(visible)
    else:
        found = [columns for table in visible if (columns := _by_hand(table, question, answer))]
        if not found:
            raise _no_such_column(visible, question, answer)
    if all(columns.answer in columns.question for columns in found):
        raise SheetError(
            f'Question and answer are the same column "{found[0].answer_name}".', "Name two different columns."
        )
    # The surest; of equally sure ones the first. Guessed columns may mean anything, so one table of them is enough.
    best = max(found, key=lambda columns: columns.certainty)
    alike = [columns for columns in found if columns.certainty is best.certainty and columns.names == best.names]
    chosen = [best] if best.certainty is Certainty.GUESSED else alike
    return chosen, [*_warn_of_choice(best), *_warn_of_rows_above(chosen), *_warn_of_sheets(tables, chosen, sheet)]


def considered(tables: Sequence[Table], sheet: str | None) -> list[Table]:
    """The table named by hand, or the visible ones, or all where none is visible."""
    if sheet is None:
        return [table for table in tables if not table.hidden] or list(tables)
    names = [table.name for table in tables if table.name is not None]
    if not names:
        raise SheetError(f'There is no sheet "{sheet}": the file is not a workbook.', "Leave the sheet out.")
    wanted = [table for table in tables if table.name is not None and _same(table.name, sheet)]
    if not wanted:
        raise SheetError(f'There is no sheet "{sheet}" with rows in it.', f"Sheets with rows: {_listed(names)}.")
    return wanted


def _by_hand(table: Table, question: str | None, answer: str | None) -> Columns | None:
    """The named columns, the other one found by name or content; None if this table lacks one."""
    header = _header_with(table, question, answer)
    asked, told = place(header, question), place(header, answer)
    if (asked is None) != (question is None) or (told is None) != (answer is None):
        return None
    certainty = Certainty.BY_HAND
    if asked is None and told is not None:
        asked, certainty = _partner(header, told, QUESTION, ANSWER)
    elif told is None and asked is not None:
        told, certainty = _partner(header, asked, ANSWER, QUESTION)
    if asked is None or told is None:
        return None
    both = with_context(header, asked, told) if question is None else (asked,)
    return Columns(table, header, both, told, certainty)


def _header_with(table: Table, *names: str | None) -> Header:
    """The row that holds the given names. Letters and numbers tell no row, as any cell may hold a 3."""
    given = [name for name in names if name is not None]
    telling = [name for name in given if not _LETTER_OR_NUMBER.fullmatch(name.strip())]
    found = _row_with(table, telling) if telling else None
    if found is None:
        columns = find_columns(table)
        found = columns.header if columns else likely_header(table)
    # Then "Bot" is no letter of a column either.
    if any(place(found, name) is None for name in given):
        found = _row_with(table, given) or found
    return found


def _row_with(table: Table, names: Sequence[str]) -> Header | None:
    headers = (header for header in candidates(table) if all(_named(header, name) is not None for name in names))
    return next(headers, None)


def place(header: Header, name: str | None) -> int | None:
    """The column that a person means: by its header, else by letter ("C"), else by number ("3")."""
    if name is None:
        return None
    named = _named(header, name)
    if named is not None:
        return named
    called = name.strip().upper()
    letters = [letter(column) for column in range(header.width)]
    if called in letters:
        return letters.index(called)
    return int(called) - 1 if called in map(str, range(1, header.width + 1)) else None


def _named(header: Header, name: str) -> int | None:
    return next((column for column, label in enumerate(header.labels) if label and _same(label, name)), None)


def _same(name: str, other: str) -> bool:
    # Names of punctuation alone ("?") normalize to nothing.
    return name.strip() == other.strip() or normalize_name(name) == normalize_name(other) != ""


def _partner(header: Header, known: int, role: Role, other: Role) -> tuple[int | None, Certainty]:
    likeness, column = best_column(header, role, other)
    if likeness and column != known:
        return column, Certainty.BY_HAND if likeness is Likeness.EXACT else Certainty.SIMILAR_NAMES
    texts = (column for column in text_columns(header) if column != known)
    return next(texts, None), Certainty.GUESSED


def _warn_of_choice(columns: Columns) -> list[SheetWarning]:
    taken = f'"{columns.question_name}" was taken as the question and "{columns.answer_name}" as the answer'
    warnings = []
    if columns.certainty is Certainty.GUESSED:
        names = "" if columns.header.row is None else f" Row {columns.header.row} was read as the column names."
        message = f"The columns are not named question and answer: {taken}.{names} {_BY_HAND}"
        warnings.append(SheetWarning("guessed_columns", message))
    elif columns.certainty is Certainty.SIMILAR_NAMES:
        warnings.append(SheetWarning("similar_columns", f"{taken}. {_BY_HAND}"))
    if columns.header.row is None and columns.table.columns is None:
        first = columns.table.rows[0].number
        message = f"No row with column names was found: columns are called by letter and row {first} is a pair."
        warnings.append(SheetWarning("no_header", message, (first,), sheets=(columns.table.name,)))
    return warnings


def _warn_of_rows_above(chosen: Sequence[Columns]) -> list[SheetWarning]:
    """Pairs above a row that was taken for the column names would be lost."""
    above = [
        RowNote(row.number, f"above the column names in row {columns.header.row}", columns.table.name)
        for columns in chosen
        for row in columns.above
    ]
    if not above:
        return []
    what = "row above the column names holds" if len(above) == 1 else "rows above the column names hold"
    message = (
        f"{len(above)} {what} text in both columns: left out. "
        "Pairs are read below the names: if these are pairs, write the names into a row above them."
    )
    return [warn_of_notes("rows_above_header", message, above)]


def _warn_of_sheets(tables: Sequence[Table], chosen: Sequence[Columns], sheet: str | None) -> list[SheetWarning]:
    warnings = []
    used = [columns.table.name or "" for columns in chosen]
    if len(used) > 1:
        message = f"{len(used)} sheets with the same columns are used together: {_listed(used)}."
        warnings.append(SheetWarning("several_sheets", message))
    unused = [table.name for table in tables if table.name is not None and table.name not in used]
    if unused and sheet is None:
        message = f"Not used: {_sheets(unused)} {_listed(unused)}. Name a sheet with --sheet-name to use it."
        warnings.append(SheetWarning("unused_sheets", message))
    return warnings


def _too_few_columns(tables: Sequence[Table]) -> SheetError:
    header, texts = max(
        ((header, text_columns(header)) for header in map(likely_header, tables)), key=lambda pair: len(pair[1])
    )
    if not texts:
        message = "no column holds text, two are needed: question and answer."
        return SheetError(_located(tables, message), "Write the questions in one column and the answers in another.")
    others = [header.label(column) for column in range(header.width) if column not in texts]
    rest = f" Without text: {_listed(others)}." if others else ""
    return SheetError(
        _located(tables, f'found one column "{header.label(texts[0])}", two are needed: question and answer.{rest}'),
        "Put the questions in one column and the answers in another, a pair in each row.",
    )


def _no_such_column(tables: Sequence[Table], question: str | None, answer: str | None) -> SheetError:
    header = _header_with(tables[0], question, answer)
    missing = [name for name in (question, answer) if name is not None and place(header, name) is None]
    if not missing:
        return _too_few_columns(tables)
    there = [header.label(column) for column in range(header.width)]
    return SheetError(
        _located(tables, f"there is no column {_listed(missing)}."),
        f"Columns that exist: {_listed(there)}. A letter (C) or a number (3) works as well.",
    )


def _located(tables: Sequence[Table], message: str) -> str:
    names = [table.name for table in tables if table.name is not None]
    return f"In {_sheets(names)} {_listed(names)}: {message}" if names else message[0].upper() + message[1:]


def _sheets(names: Sequence[str]) -> str:
    return "sheet" if len(names) == 1 else "sheets"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
