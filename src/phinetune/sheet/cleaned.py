"""A sheet's pairs and findings -> a workbook of its own: what to train on, and what was found and done.

Pairs      Row | No. | Question | Best Answer | Notes     the columns of the sheet, every pair once, cleaned, as text
Findings   Row | Finding | What was done                  everything else that `check` said

The sheet it comes from is not touched. Training on the workbook is training on that sheet with no pair twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import xlsxwriter

from phinetune.errors import RunError
from phinetune.run_folder import atomic_file
from phinetune.sheet.clean import clean
from phinetune.sheet.findings import CODES_OF_SKIPPED, Pair
from phinetune.sheet.header import Certainty, Columns
from phinetune.sheet.header_names import ANSWER, QUESTION, Likeness, rate
from phinetune.sheet.pairs import PairTable, Source
from phinetune.sheet.repeats import first_of_each
from phinetune.sheet.table import shown

PAIRS, FINDINGS = "Pairs", "Findings"
_LONGEST_CELL = 32_767  # characters, Excel's own limit
_MOST_ROWS = 1_048_575  # below the header, Excel's own limit
_WIDTHS = {"Sheet": 16, "Row": 8, "Finding": 80, "What was done": 40}
_QUESTION_WIDTH, _ANSWER_WIDTH, _OTHER_WIDTH = 50, 80, 20

_ROLES = (QUESTION, ANSWER)

_LEFT_OUT = "left out"
_KEPT = "kept as it is"
_DONE = {
    "empty_rows": _LEFT_OUT,
    "rows_above_header": _LEFT_OUT,
    "duplicate_pairs": "removed: the earlier one stays",
    "duplicate_questions": "kept: it counts again",
    "near_duplicates": "kept: it counts again",
    "conflicting_answers": "kept: decide on one answer",
    "mojibake": "kept: correct it by hand",
    "html": "kept: take it out by hand",
    "answer_is_question": "kept: write an answer or remove the row",
    "likely_placeholders": "kept: write the answer or remove the row if one is missing",
    "personal_data": "kept: take it out if it is not for everybody",
    "answers_cut": "kept whole: training cuts it",
    "questions_too_long": "kept: shorten it, training refuses it",
}


class Finding(NamedTuple):
    """One line of the account; `row` and `sheet` are None for what is said of the file."""

    sheet: str | None
    row: int | None
    code: str
    text: str
    done: str


def list_findings(table: PairTable) -> list[Finding]:
    """Everything found, by row: first what is said of the file, then row by row in the order of the sheet."""
    of_file = [
        Finding(None, None, warning.code, warning.message, _DONE.get(warning.code, ""))
        for warning in table.warnings
        if not warning.notes and warning.code not in CODES_OF_SKIPPED.values()
    ]
    of_rows = [
        Finding(note.sheet, note.row, warning.code, note.text, _DONE.get(warning.code, _KEPT))
        for warning in table.warnings
        for note in warning.notes
    ]
    of_rows += [
        Finding(skipped.sheet, skipped.row, CODES_OF_SKIPPED[skipped.trouble], str(skipped.reason), _LEFT_OUT)
        for skipped in table.skipped
    ]
    sheets = {name: place for place, name in enumerate(table.sheet if isinstance(table.sheet, list) else [])}
    return of_file + sorted(of_rows, key=lambda found: (sheets.get(found.sheet or "", 0), found.row or 0))


def check_place(path: Path, sheet: Path) -> None:
    """Raises RunError for a file that is there already, or is no .xlsx file."""
    if path.suffix.lower() != ".xlsx":
        raise RunError(f"A cleaned workbook cannot be written to {path.name}.", "Name a file that ends in .xlsx.")
    if path.exists():
        its = "the sheet itself" if sheet.exists() and path.samefile(sheet) else "there already"
        raise RunError(f"{path} is {its}, and is not replaced.", "Name a new file after --fix, or remove this one.")


def write_cleaned(path: Path, table: PairTable) -> None:
    """Write the pairs, each once, and the findings of `table` to a new workbook at `path`, every cell as text.

    Raises RunError when the file is there already, the pairs are too many for a sheet, or the disk is full.
    """
    check_place(path, path)
    if len(table.pairs) > _MOST_ROWS:
        raise RunError(f"A sheet holds {_MOST_ROWS:,} rows, and there are {len(table.pairs):,} pairs.", "Divide them.")
    several = isinstance(table.sheet, list)
    found = list_findings(table)
    kept = [place for place, is_first in enumerate(first_of_each(table.pairs)) if is_first]
    sources = [table.sources[place] for place in kept]
    places = {id(columns): _places(columns) for columns in {id(s.columns): s.columns for s in sources}.values()}
    layout = _layout(sources, places)
    rows = []
    for pair, source in zip((table.pairs[place] for place in kept), sources, strict=True):
        texts = _texts(pair, source, places[id(source.columns)])
        for text in texts.values():
            if len(text) > _LONGEST_CELL:
                cut = f"{len(text):,} characters, more than a cell of a workbook holds"
                found.append(Finding(pair.sheet, pair.row, "cell_limit", cut, f"cut at {_LONGEST_CELL:,} characters"))
        rows.append((pair.sheet, pair.row, *(texts.get(column, "") for column in layout)))
    lines = [(line.sheet, line.row, line.text, line.done) for line in found[:_MOST_ROWS]]
    titles = ("Sheet", "Row", *layout.values())
    widths = [_WIDTHS["Sheet"], _WIDTHS["Row"], *map(_width, layout)]
    of_findings = ("Sheet", "Row", "Finding", "What was done")
    with atomic_file(path) as temporary, xlsxwriter.Workbook(temporary) as book:
        _write_sheet(book, PAIRS, titles, widths, rows, several)
        _write_sheet(book, FINDINGS, of_findings, [_WIDTHS[title] for title in of_findings], lines, several)


class _Column(NamedTuple):
    """What a column of the workbook holds: the question, the answer, or what the sheet has beside them by that name."""

    holds: str
    nth: int  # of several with one name, or of the parts of a question


def _width(column: _Column) -> int:
    return {QUESTION.name: _QUESTION_WIDTH, ANSWER.name: _ANSWER_WIDTH}.get(column.holds, _OTHER_WIDTH)


def _layout(sources: Sequence[Source], places: Mapping[int, Mapping[int, _Column]]) -> dict[_Column, str]:
    """The columns with their titles: those of the first sheet in its order, then what others have besides.

    Columns that were not found by their names get names to find them by.
    """
    layout: dict[_Column, str] = {}
    for columns in {id(source.columns): source.columns for source in sources}.values():
        by_name = columns.certainty in (Certainty.NAMES, Certainty.SIMILAR_NAMES)
        rows = [source.row for source in sources if source.columns is columns]
        for place, column in places[id(columns)].items():
            title = columns.header.title(place)
            is_role = column.holds in (QUESTION.name, ANSWER.name)
            if is_role and not by_name:
                title = column.holds.capitalize()
            elif not is_role and not by_name and any(rate(title, role)[0] is Likeness.EXACT for role in _ROLES):
                title += " (not used)"
            named = any(columns.header.labels[place : place + 1])
            if is_role or named or any(shown(row.cell(place)).strip() for row in rows):
                layout.setdefault(column, title)
    return layout


def _places(columns: Columns) -> dict[int, _Column]:
    roles = {place: _Column(QUESTION.name, nth) for nth, place in enumerate(columns.question)}
    roles[columns.answer] = _Column(ANSWER.name, 0)
    seen: Counter[str] = Counter()
    found = {}
    for place in range(max(columns.header.width, *(place + 1 for place in roles))):
        title = f"beside: {columns.header.title(place)}"
        found[place] = roles.get(place) or _Column(title, seen[title])
        seen[title] += place not in roles
    return found


def _texts(pair: Pair, source: Source, places: Mapping[int, _Column]) -> dict[_Column, str]:
    """The row as text; what is read in training is cleaned, the rest is as it stands."""
    columns, row = source
    texts = {column: shown(row.cell(place)) for place, column in places.items()}
    if len(columns.question) == 1:
        return texts | {_Column(QUESTION.name, 0): pair.question, _Column(ANSWER.name, 0): pair.answer}
    parts = {_Column(QUESTION.name, nth): clean(shown(row.cell(place))) for nth, place in enumerate(columns.question)}
    return texts | parts | {_Column(ANSWER.name, 0): pair.answer}


def _write_sheet(
    book: xlsxwriter.Workbook,
    name: str,
    titles: Sequence[str],
    widths: Sequence[int],
    rows: Iterable[Sequence[str | int | None]],
    several: bool,
) -> None:
    """The first column is the sheet's name: left out unless there are several."""
    sheet = book.add_worksheet(name)
    bold, text = book.add_format({"bold": True}), book.add_format({"text_wrap": True, "valign": "top"})
    for column, (title, width) in enumerate(list(zip(titles, widths, strict=True))[not several :]):
        sheet.write_string(0, column, title[:_LONGEST_CELL], bold)
        sheet.set_column(column, column, width)
    for place, row in enumerate(rows, start=1):
        for column, cell in enumerate(row[not several :]):
            if isinstance(cell, int):
                sheet.write_number(place, column, cell, text)
            elif cell:
                # write_string makes neither a formula nor a link of what begins like one.
                sheet.write_string(place, column, cell[:_LONGEST_CELL], text)
    sheet.freeze_panes(1, 0)
