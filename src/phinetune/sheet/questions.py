"""A table file -> the questions in it, with every other cell of their rows: what a list to be answered looks like.

| No. | Customer asks     | Due   |        questions   (row 2, "When do you open?"), …
| 1   | When do you open? | today |   ─►   columns     No., Customer asks, Due
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from phinetune.errors import SheetError
from phinetune.sheet.columns import considered, place
from phinetune.sheet.header import Header, best_column, candidates, likely_header, text_columns
from phinetune.sheet.header_names import ANSWER, QUESTION, Likeness
from phinetune.sheet.read import read_tables
from phinetune.sheet.table import Table, clean_text, shown


@dataclass(frozen=True)
class QuestionTable:
    """`rows` hold all cells as text, `questions` the question of each row, "" where there is none.

    `place` is that of the questions' column, `header_row` the row with the names of the columns, `answer_column` the
    place of a column that is named for answers and has none yet.
    """

    file: str
    sheet: str | None
    columns: tuple[str, ...]
    question_column: str
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[int, ...]
    questions: tuple[str, ...]
    place: int
    header_row: int | None
    answer_column: int | None = None


def find_questions(path: str | Path, *, question: str | None = None, sheet: str | None = None) -> QuestionTable:
    """The questions of a table file. `question` names their column by header, letter or number, `sheet` the sheet.

    Raises SheetError when the file cannot be used, or holds no such column or no question.
    """
    path = Path(path)
    tables = considered(read_tables(path), sheet)
    table, header, column = _by_hand(tables, question) if question is not None else _found(tables)
    width = max([header.width, column + 1, *(len(row.cells) for row in header.data)])
    rows = tuple(tuple(shown(row.cell(index)) for index in range(width)) for row in header.data)
    questions = tuple(clean_text(row.cell(column)) for row in header.data)
    if not any(questions):
        raise SheetError(
            f'{path.name}: the column "{header.label(column)}" holds no question.', "Name another one with --question."
        )
    return QuestionTable(
        file=path.name,
        sheet=table.name,
        columns=tuple(header.title(index) for index in range(width)),
        question_column=header.label(column),
        rows=rows,
        numbers=tuple(row.number for row in header.data),
        questions=questions,
        place=column,
        header_row=header.row,
        answer_column=_to_fill(header, column, rows),
    )


def _to_fill(header: Header, question: int, rows: Sequence[Sequence[str]]) -> int | None:
    likeness, column = best_column(header, ANSWER, QUESTION)
    wanted = likeness is Likeness.EXACT and column != question
    return column if wanted and not any(row[column].strip() for row in rows) else None


def _by_hand(tables: list[Table], question: str) -> tuple[Table, Header, int]:
    for table in tables:
        for header in (*candidates(table), likely_header(table)):
            column = place(header, question)
            if column is not None and header.data:
                return table, header, column
    there = next(candidates(tables[0]))
    names = ", ".join(f'"{there.label(column)}"' for column in range(there.width))
    raise SheetError(f'There is no column "{question}".', f"Columns that exist: {names}.")


def _found(tables: list[Table]) -> tuple[Table, Header, int]:
    """The column that is best named for questions in any table, else the first one with text in the first table."""
    rated = [
        (*best_column(header, QUESTION, ANSWER), table, header)
        for table in tables
        for header in candidates(table)
        if header.data
    ]
    for likeness in sorted(set(Likeness), reverse=True):
        for found, column, table, header in rated:
            if found is likeness and found:
                return table, header, column
    for table in tables:
        header = likely_header(table)
        if (columns := text_columns(header)) and not _is_question(header, columns[0]):
            return table, header, columns[0]
        without = Header((), None, table.rows)
        if columns := text_columns(without):
            return table, without, columns[0]
    raise SheetError("No column holds text.", "Write the questions in one column, one in each row.")


def _is_question(header: Header, column: int) -> bool:
    """Whether what would be the name of the column is a question to be answered itself."""
    return column < len(header.labels) and header.labels[column].endswith(("?", "？", "؟"))
