"""A list of questions goes in, the same list with answers comes out."""

from __future__ import annotations

import csv
import datetime
import sys
from pathlib import Path

import openpyxl
import pytest
import toys
import xlsxwriter

import phinetune
from phinetune.errors import RunError, SheetError

sys.path.insert(0, str(Path(__file__).parents[2] / "torture"))

import _seeds as seeds


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "questions.xlsx"
    with xlsxwriter.Workbook(path) as book:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, ["No.", "Question", "Note"])
        for row, (question, _) in enumerate(toys.PAIRS, start=1):
            sheet.write_row(row, 0, [row, question, "=1+1" if row == 2 else "keep me"])
        sheet.write_row(len(toys.PAIRS) + 1, 0, [99, "", "no question here"])
    return path


def test_answers_stand_beside_their_questions_and_every_column_is_kept(toy_run, questions, tmp_path):
    seen = []
    done = phinetune.answer_sheet(
        toy_run,
        questions,
        tmp_path / "out.xlsx",
        max_new_tokens=30,
        on_progress=lambda *progress: seen.append(progress),
    )
    assert (done.answers, done.rows_without_question, done.column) == (len(toys.PAIRS), 1, "Answer")
    assert seen[-1] == ("answering", len(toys.PAIRS), len(toys.PAIRS))
    rows = list(openpyxl.load_workbook(done.path).active.iter_rows(values_only=True))
    assert rows[0] == ("No.", "Question", "Note", "Answer")
    expected = phinetune.open_model(toy_run).answer_all([question for question, _ in toys.PAIRS], max_new_tokens=30)
    assert [row[1] for row in rows[1:-1]] == [question for question, _ in toys.PAIRS]
    assert [row[3] for row in rows[1:-1]] == expected
    assert rows[-1][2] == "no question here"
    assert not rows[-1][3]


def test_from_workbook_to_workbook_all_else_stays_as_it_was(toy_run, tmp_path):
    path = tmp_path / "typed.xlsx"
    with xlsxwriter.Workbook(path) as book:
        sheet, other = book.add_worksheet("FAQ"), book.add_worksheet("Other")
        sheet.write_row(0, 0, ["No.", "Question", "Due", "Share", "Done"], book.add_format({"bg_color": "yellow"}))
        sheet.write_row(1, 0, [7.5, toys.PAIRS[1][0]])
        sheet.write_datetime(1, 2, datetime.datetime(2026, 3, 12), book.add_format({"num_format": "dd.mm.yyyy"}))
        sheet.write_number(1, 3, 0.15, book.add_format({"num_format": "0%"}))
        sheet.write_boolean(1, 4, True)
        other.write_formula(0, 0, "=FAQ!A2*2", value=15)
    done = phinetune.answer_sheet(toy_run, path, tmp_path / "a.xlsx", max_new_tokens=8)
    assert (done.kept, done.column) == (True, "Answer")
    book = openpyxl.load_workbook(done.path)
    answer = phinetune.open_model(toy_run).ask(toys.PAIRS[1][0], max_new_tokens=8)
    assert [cell.value for cell in book["FAQ"][1]][-1] == "Answer"
    assert [cell.value for cell in book["FAQ"][2]] == [
        *(7.5, toys.PAIRS[1][0], datetime.datetime(2026, 3, 12), 0.15, True),
        answer,
    ]
    assert [book["FAQ"][place].number_format for place in ("C2", "D2")] == ["dd.mm.yyyy", "0%"]
    assert book["FAQ"]["A1"].fill.bgColor.rgb == book["FAQ"]["F1"].fill.bgColor.rgb
    assert book["Other"]["A1"].value == "=FAQ!A2*2"


def _one_row_of_each_type(write):
    rows = [["Question", "Share", "Due", "Done", "Note"]]
    rows += [[toys.PAIRS[1][0], 0.5, datetime.date(2026, 3, 12), True, "=1+1"]]
    return write([(row, column, value) for row, cells in enumerate(rows) for column, value in enumerate(cells)])


@pytest.mark.parametrize(("ending", "write"), [("xls", seeds.xls), ("xlsb", seeds.xlsb)])
def test_from_an_old_workbook_numbers_dates_and_truth_values_stay_such(toy_run, tmp_path, ending, write):
    path = tmp_path / f"typed.{ending}"
    path.write_bytes(_one_row_of_each_type(write))
    done = phinetune.answer_sheet(toy_run, path, tmp_path / "a.xlsx", max_new_tokens=4)
    assert not done.kept
    answer = phinetune.open_model(toy_run).ask(toys.PAIRS[1][0], max_new_tokens=4)
    row = openpyxl.load_workbook(done.path).active[2]
    assert [cell.value for cell in row][1:] == [0.5, datetime.datetime(2026, 3, 12), True, "=1+1", answer]
    assert [cell.data_type for cell in row] == ["s", "n", "d", "b", "s", "s"]
    as_text = phinetune.answer_sheet(toy_run, path, tmp_path / "a.csv", max_new_tokens=4)
    with as_text.path.open(encoding="utf-8-sig", newline="") as file:
        assert list(csv.reader(file))[1][1:5] == ["0.5", "2026-03-12", "TRUE", "'=1+1"]


def test_numbers_and_telephone_numbers_stay_as_they_are_in_csv(toy_run, tmp_path):
    cells = ["-3", "+49 30 123", "-1.5e-7", "-12,5 %", "-", "+1 (555) 010-99"]
    risky = ["-A1", "+cmd|' /C calc'!A0", "-2+SUM(A1)", "@x", "- then"]
    sheet = tmp_path / "list.csv"
    with sheet.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [["Question", "Note"], *([f"Who {n}?", cell] for n, cell in enumerate(cells + risky))]
        )
    done = phinetune.answer_sheet(toy_run, sheet, tmp_path / "a.csv", max_new_tokens=2)
    with done.path.open(encoding="utf-8-sig", newline="") as file:
        notes = [row[1] for row in csv.reader(file)][1:]
    assert notes == cells + [f"'{cell}" for cell in risky]


def test_a_cell_right_of_all_others_is_kept_too(toy_run, tmp_path):
    sheet = tmp_path / "list.csv"
    sheet.write_text("Question,Note\n" + "Who?,x\n" * 300 + "When?,x,far right\n", encoding="utf-8")
    done = phinetune.answer_sheet(toy_run, sheet, tmp_path / "a.csv", max_new_tokens=1)
    with done.path.open(encoding="utf-8-sig", newline="") as file:
        assert list(csv.reader(file))[-1][:3] == ["When?", "x", "far right"]


def test_no_cell_becomes_a_formula(toy_run, tmp_path):
    sheet = tmp_path / "list.csv"
    sheet.write_text('Question,Note\nWho?,"=HYPERLINK(""http://x"")"\nWhen?,@SUM(A1)\n', encoding="utf-8")
    book = phinetune.answer_sheet(toy_run, sheet, tmp_path / "a.xlsx", max_new_tokens=4).path
    assert all(cell.data_type == "s" for row in openpyxl.load_workbook(book).active for cell in row if cell.value)
    text = phinetune.answer_sheet(toy_run, sheet, tmp_path / "a.csv", max_new_tokens=4).path
    with text.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[1][1] == '\'=HYPERLINK("http://x")'
    assert rows[2][1] == "'@SUM(A1)"


def test_a_column_of_old_answers_is_kept(toy_run, tmp_path):
    sheet = tmp_path / "list.csv"
    sheet.write_text("Question,Answer\nWho?,old\n", encoding="utf-8")
    done = phinetune.answer_sheet(toy_run, sheet, tmp_path / "a.csv", max_new_tokens=4)
    assert done.column == "Answer (model)"
    assert "old" in done.path.read_text(encoding="utf-8-sig")


def test_an_empty_column_for_answers_is_filled(toy_run, tmp_path):
    sheet = tmp_path / "list.csv"
    sheet.write_text("Question,Answer,Due\nWho?,,today\n", encoding="utf-8")
    done = phinetune.answer_sheet(toy_run, sheet, tmp_path / "a.csv", max_new_tokens=8)
    with done.path.open(encoding="utf-8-sig", newline="") as file:
        [header, row] = csv.reader(file)
    assert header == ["Question", "Answer", "Due"]
    assert row == ["Who?", phinetune.open_model(toy_run).ask("Who?", greedy=True, max_new_tokens=8), "today"]
    assert done.column == "Answer"


def test_bad_wishes_are_clear_errors(toy_run, questions, tmp_path):
    with pytest.raises(RunError, match=r"cannot be written to a\.pdf"):
        phinetune.answer_sheet(toy_run, questions, tmp_path / "a.pdf", max_new_tokens=2)
    (tmp_path / "a.xlsx").write_text("mine")
    with pytest.raises(RunError, match="is there already"):
        phinetune.answer_sheet(toy_run, questions, tmp_path / "a.xlsx")
    with pytest.raises(SheetError, match="no file"):
        phinetune.answer_sheet(toy_run, tmp_path / "none.xlsx", tmp_path / "b.xlsx")
    assert (tmp_path / "a.xlsx").read_text() == "mine"
