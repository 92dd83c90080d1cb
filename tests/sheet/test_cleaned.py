"""The cleaned workbook holds the pairs of training, each once, and every finding, as text, and replaces nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import openpyxl
import pytest

from phinetune.errors import RunError
from phinetune.sheet import PairTable, find_pairs
from phinetune.sheet.cleaned import list_findings, write_cleaned

Write = Callable[..., Path]
ROWS = [
    ["Question", "Answer"],
    ["\u200b Who? ", "We,\u00a0all_x000D_\nof us."],
    ["=1+1", "=HYPERLINK(\"http://x.org\")"],
    ["Why?", "TBD"],
    ["who", "Nobody."],
    ["Where?", "@home +1 -2"],
]  # fmt: skip


def cells(path: Path, sheet: str) -> list[tuple[object, ...]]:
    return list(openpyxl.load_workbook(path)[sheet].iter_rows(values_only=True))


def texts(table: PairTable) -> list[tuple[str, str]]:
    return [(pair.question, pair.answer) for pair in table.pairs]


@pytest.fixture
def sheet(text_file: Write) -> Path:
    lines = "".join("\t".join(f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in row) + "\n" for row in ROWS)
    return text_file(lines, "faq.tsv")


def test_training_on_it_is_training_on_the_sheet(sheet: Path, tmp_path: Path) -> None:
    table = find_pairs(sheet)
    write_cleaned(tmp_path / "cleaned.xlsx", table)
    again = find_pairs(tmp_path / "cleaned.xlsx")
    assert (again.sheet, again.question_column, again.answer_column) == ("Pairs", "Question", "Answer")
    assert texts(again) == texts(table)
    assert len(texts(again)) == 4


def test_no_cell_is_a_formula_or_a_link(sheet: Path, tmp_path: Path) -> None:
    write_cleaned(tmp_path / "cleaned.xlsx", find_pairs(sheet))
    book = openpyxl.load_workbook(tmp_path / "cleaned.xlsx")
    kinds = {(cell.data_type, bool(cell.hyperlink)) for page in book for row in page.iter_rows() for cell in row}
    assert kinds <= {("s", False), ("n", False)}
    assert "=1+1" in [cell.value for cell in book["Pairs"]["B"]]


def test_findings_name_row_and_what_was_done(sheet: Path, tmp_path: Path) -> None:
    write_cleaned(tmp_path / "cleaned.xlsx", find_pairs(sheet))
    header, *lines = cells(tmp_path / "cleaned.xlsx", "Findings")
    assert header == ("Row", "Finding", "What was done")
    rows = {line[0]: line[1:] for line in lines}
    # The second row of the file has a line break inside, which is one row all the same.
    assert rows[4] == ('placeholder "TBD" as the answer', "left out")
    assert rows[5] == ("the same question is answered differently in row 2", "kept: decide on one answer")
    assert str(rows[None][0]).startswith("There are only 4 pairs")


def test_the_sheet_itself_is_untouched_and_no_file_is_replaced(sheet: Path, tmp_path: Path, workbook: Write) -> None:
    before = sheet.read_bytes()
    there = workbook({"FAQ": [["Question", "Answer"], ["Who?", "We."]]}, "there.xlsx")
    kept = there.read_bytes()
    with pytest.raises(RunError, match="is not replaced"):
        write_cleaned(there, find_pairs(there))
    with pytest.raises(RunError, match="cannot be written to"):
        write_cleaned(tmp_path / "cleaned.csv", find_pairs(sheet))
    assert (sheet.read_bytes(), there.read_bytes()) == (before, kept)
    assert not list(tmp_path.glob(".partial-*"))


def test_several_sheets_are_named(workbook: Write, tmp_path: Path) -> None:
    rows = [["Question", "Answer"], ["Who?", "We."], ["Why?", ""]]
    table = find_pairs(workbook({"One": rows, "Two": rows}))
    write_cleaned(tmp_path / "cleaned.xlsx", table)
    assert cells(tmp_path / "cleaned.xlsx", "Pairs") == [
        ("Sheet", "Row", "Question", "Answer"),
        ("One", 2, "Who?", "We."),
    ]
    of_rows = [(found.sheet, found.row, found.done) for found in list_findings(table) if found.row]
    assert of_rows == [("One", 3, "left out"), ("Two", 2, "removed: the earlier one stays"), ("Two", 3, "left out")]


def test_what_no_cell_can_hold_is_cut_and_told(text_file: Write, tmp_path: Path) -> None:
    write_cleaned(tmp_path / "cleaned.xlsx", find_pairs(text_file(f"question,answer\nWho?,{'x' * 40_000}\n")))
    assert len(str(cells(tmp_path / "cleaned.xlsx", "Pairs")[1][2])) == 32_767
    (done,) = [line[2] for line in cells(tmp_path / "cleaned.xlsx", "Findings") if "40,000" in str(line[1])]
    assert done == "cut at 32,767 characters"


def test_no_pair_stands_in_it_twice_and_the_list_says_so(workbook: Write, tmp_path: Path) -> None:
    rows = [["Question", "Answer"], ["Who?", "We."], ["Why?", "So."], ["Who?", " We."], ["who", "We."], ["Who?", "I."]]
    table = find_pairs(workbook({"FAQ": rows}))
    write_cleaned(tmp_path / "cleaned.xlsx", table)
    kept = [line[0] for line in cells(tmp_path / "cleaned.xlsx", "Pairs")[1:]]
    assert kept == [2, 3, 5, 6]  # other letters and another answer are for a person to judge
    done = {(line[0], line[2]) for line in cells(tmp_path / "cleaned.xlsx", "Findings")}
    assert (4, "removed: the earlier one stays") in done
    assert (5, "kept: it counts again") in done
    assert not [w for w in find_pairs(tmp_path / "cleaned.xlsx").warnings if w.code == "duplicate_pairs"]


def test_the_other_columns_stay_where_they_are(workbook: Write, tmp_path: Path) -> None:
    rows = [
        ["Our desk"],
        ["No.", "Question", "", "Notes", "Best Answer", "Notes"],
        [1, " When? ", "", "@home", "At  nine.", "x"],
        [2, "Where?", "stray", 0.5, "Here."],
        [3, "Why?", "", "", "n/a", "left out"],
    ]
    table = find_pairs(workbook({"FAQ": rows}))
    write_cleaned(tmp_path / "cleaned.xlsx", table)
    assert cells(tmp_path / "cleaned.xlsx", "Pairs") == [
        ("Row", "No.", "Question", "C", "Notes", "Best Answer", "Notes"),
        (3, "1", "When?", None, "@home", table.pairs[0].answer, "x"),
        (4, "2", "Where?", "stray", "0.5", "Here.", None),
    ]
    assert texts(find_pairs(tmp_path / "cleaned.xlsx")) == texts(table)


def test_columns_named_by_hand_are_found_again_without(workbook: Write, tmp_path: Path) -> None:
    rows = [["Answer", "Ask", "E", "Question"], ["old", "Who?", "We.", "old?"], ["older", "Why?", "So.", "older?"]]
    table = find_pairs(workbook({"FAQ": rows}), question="B", answer="C")
    write_cleaned(tmp_path / "cleaned.xlsx", table)
    header = cells(tmp_path / "cleaned.xlsx", "Pairs")[0]
    assert header == ("Row", "Answer (not used)", "Question", "Answer", "Question (not used)")
    assert texts(find_pairs(tmp_path / "cleaned.xlsx")) == [("Who?", "We."), ("Why?", "So.")]


def test_an_instruction_and_its_input_stay_two_columns(text_file: Write, tmp_path: Path) -> None:
    lines = "instruction,input,output,id\nAdd,1 and 2,3,a\nGreet,,Hello,b\n"
    table = find_pairs(text_file(lines))
    write_cleaned(tmp_path / "cleaned.xlsx", table)
    assert cells(tmp_path / "cleaned.xlsx", "Pairs")[:2] == [
        ("Row", "instruction", "input", "output", "id"),
        (2, "Add", "1 and 2", "3", "a"),
    ]
    assert texts(find_pairs(tmp_path / "cleaned.xlsx")) == texts(table)


def test_sheets_with_other_columns_besides_lose_none(workbook: Write, tmp_path: Path) -> None:
    one = [["Topic", "Question", "Answer"], ["hours", "When?", "At nine."]]
    two = [["Question", "Answer", "Checked by"], ["Where?", "Here.", "Ann"]]
    write_cleaned(tmp_path / "cleaned.xlsx", find_pairs(workbook({"One": one, "Two": two})))
    assert cells(tmp_path / "cleaned.xlsx", "Pairs") == [
        ("Sheet", "Row", "Topic", "Question", "Answer", "Checked by"),
        ("One", 2, "hours", "When?", "At nine.", None),
        ("Two", 2, None, "Where?", "Here.", "Ann"),
    ]
