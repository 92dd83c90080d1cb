"""Numbers, days, times and truth values of a workbook keep their type; a text never becomes anything else."""

from __future__ import annotations

import datetime
import sys
from pathlib import Path

import pytest

from phinetune.sheet.questions import find_questions
from phinetune.sheet.stored import Stored, _format_of, stored_cells

sys.path.insert(0, str(Path(__file__).parents[2] / "torture"))

import _seeds as seeds

ROWS = [
    ["Question", "Cells"],
    *(["Who?", value] for value in (7.5, 123456789012, True, datetime.date(2026, 3, 12), "007", "=1+1", "2026-03-12")),
]
CELLS = [(row, column, value) for row, cells in enumerate(ROWS) for column, value in enumerate(cells)]


def _stored(path: Path, data: bytes) -> list[Stored | None]:
    """Of the second column."""
    path.write_bytes(data)
    table = find_questions(path)
    found = stored_cells(data, table)
    assert {column for _, column in found} <= {1}
    return [found.get((row, 1)) for row in range(len(table.rows))]


@pytest.mark.parametrize(("ending", "write"), [("xls", seeds.xls), ("xlsb", seeds.xlsb)])
def test_old_and_binary_workbooks(ending: str, write, tmp_path: Path) -> None:
    found = _stored(tmp_path / f"list.{ending}", write(CELLS))
    assert found[:4] == [(7.5, "General"), (123456789012, "0"), (True, "General"), (46093.0, "yyyy-mm-dd")]
    assert found[4:] == [None, None, None]


def test_open_documents(tmp_path: Path) -> None:
    def row(kind: str, value: str, shown: str) -> str:
        asked = '<table:table-cell office:value-type="string"><text:p>Who?</text:p></table:table-cell>'
        cell = f'<table:table-cell office:value-type="{kind}" {value}><text:p>{shown}</text:p></table:table-cell>'
        return f"<table:table-row>{asked}{cell}</table:table-row>"

    rows = [
        row("string", "", "Cells").replace("Who?", "Question"),
        row("percentage", 'office:value="0.15"', "15 %"),
        row("currency", 'office:value="1234.5"', "1.234,50 €"),
        row("date", 'office:date-value="2026-03-12"', "12.3.26"),
        row("date", 'office:date-value="2026-03-12T06:00:00"', "12.3.26 6:00"),
        row("date", 'office:date-value="1850-03-12"', "12.3.1850"),
        row("time", 'office:time-value="PT06H00M00S"', "6:00"),
        row("boolean", 'office:boolean-value="false"', "FALSCH"),
        row("string", "", "=1+1"),
    ]
    assert _stored(tmp_path / "list.ods", seeds.ods("".join(rows))) == [
        *[(0.15, r"0\ %"), (1234.5, r"#,##0.00\ \€"), (46093.0, "yyyy-mm-dd"), (46093.25, "yyyy-mm-dd hh:mm:ss")],
        *[None, (0.25, "hh:mm:ss"), (False, "General"), None],
    ]


@pytest.mark.parametrize(
    ("value", "shown", "code"),
    [
        (1.5, "1.5", "General"),
        (1.5, "1,50", "0.00"),
        (1067, "01067", "00000"),
        (0.125, "13%", "0%"),
        (-3.0, "−3,0", "0.0"),
        (-1234567, "$ -1,234,567", r"\$\ #,##0"),
        (0, "0,00", "0.00"),
        (5, '5 "kg"', r"0\ \"\k\g\""),
        (-5, "(5)", "General"),
        (1.5e10, "1,5E+10", "General"),
        (7, "8", "General"),
        (7, "=A1", "General"),
    ],
)
def test_a_number_looks_as_it_did_where_a_plain_format_does_it(value: float, shown: str, code: str) -> None:
    assert _format_of(value, shown) == code


def test_what_is_no_workbook_holds_texts(tmp_path: Path) -> None:
    assert _stored(tmp_path / "list.csv", b"Question,Cells\nWho?,7\nWhen?,8\n") == [None, None]
