"""`answer_sheet()`: a list of questions goes in, the same list with answers comes out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phinetune.api.ask import open_model
from phinetune.api.run import Run
from phinetune.artifacts.answer_sheet import answer_column_name, check_ending, write_answers
from phinetune.errors import RunError
from phinetune.run_folder import write_bytes
from phinetune.sheet.questions import QuestionTable, find_questions
from phinetune.sheet.stored import stored_cells
from phinetune.sheet.workbook_column import NewColumn, with_column


@dataclass(frozen=True)
class Answered:
    """What was written. `column` holds the answers; rows without a question got none.

    `kept`: the file is the workbook of the questions as it was, with the answers put in; otherwise its table alone.
    """

    path: Path
    column: str
    question_column: str
    answers: int
    rows_without_question: int
    kept: bool
    seconds: float


def answer_sheet(
    run: Run | str | Path,
    sheet: str | Path,
    to: str | Path = "answers.xlsx",
    *,
    question: str | None = None,
    sheet_name: str | None = None,
    base: bool = False,
    greedy: bool = True,
    overwrite: bool = False,
    model: str | None = None,
    allow_bin: bool = False,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
    **options: Any,
) -> Answered:
    """Answer every question of `sheet` and write its rows with the answers to `to`, .xlsx or .csv.

    They go into a column that is named for answers and has none, or else into one more. From .xlsx to .xlsx all else
    stays as it was: other columns with their numbers, dates and formats, formulas, colours, other sheets. Any other
    file is written anew: the table with the questions alone, its cells as texts that look as they did, save numbers,
    dates and truth values from a workbook to .xlsx.

    `options`: temperature, top_p, max_new_tokens, seed; `base` asks the model without what it learned, `allow_bin`
    reads an adapter in pickle form. Raises SheetError when there are no questions, RunError when `to` is there
    already or cannot be written.
    """
    path = Path(to)
    check_ending(path)
    if path.exists() and not overwrite:
        raise RunError(f"{path} is there already.", "Choose another name with --to, or replace it with --overwrite.")
    table = find_questions(sheet, question=question, sheet=sheet_name)
    original = Path(sheet).read_bytes()
    places = [place for place, text in enumerate(table.questions) if text]
    tuned = open_model(run, model=model, allow_bin=allow_bin)
    start = time.perf_counter()
    written = tuned.answer_all(
        [table.questions[place] for place in places],
        base=base,
        greedy=greedy,
        on_progress=lambda done: on_progress("answering", done, len(places)),
        **options,
    )
    answers = [""] * len(table.questions)
    for place, answer in zip(places, written, strict=True):
        answers[place] = answer
    as_workbook = path.suffix.lower() == ".xlsx"
    workbook = _with_answers(original, table, answers) if as_workbook else None
    if workbook is not None:
        write_bytes(path, workbook)
        column = answer_column_name(table.columns, table.answer_column)
    else:
        stored = stored_cells(original, table) if as_workbook else {}
        column = write_answers(path, table.columns, table.rows, answers, table.answer_column, stored)
    return Answered(
        path=path,
        column=column,
        question_column=table.question_column,
        answers=len(places),
        rows_without_question=len(table.questions) - len(places),
        kept=workbook is not None,
        seconds=time.perf_counter() - start,
    )


def _with_answers(original: bytes, table: QuestionTable, answers: Sequence[str]) -> bytes | None:
    """The workbook with the answers in it; None where the file is none that they can be put into."""
    if not original.startswith(b"PK") or table.sheet is None:
        return None
    cells = dict(zip(table.numbers, answers, strict=True))
    if table.answer_column is None and table.header_row is not None:
        cells[table.header_row] = answer_column_name(table.columns)
    place = len(table.columns) if table.answer_column is None else table.answer_column
    return with_column(original, table.sheet, NewColumn(place, table.place, cells))
