"""Lists of questions as people have them: with a header or without, alone or among other columns."""

from __future__ import annotations

import pytest

from phinetune.errors import SheetError
from phinetune.sheet.questions import find_questions


def _csv(tmp_path, *lines):
    path = tmp_path / "list.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_the_column_named_for_questions_among_others(tmp_path):
    found = find_questions(_csv(tmp_path, "No.,Question,Due", "1,When do you open?,today", "2,,never", "3,Who?,now"))
    assert found.question_column == "Question"
    assert found.columns == ("No.", "Question", "Due")
    assert found.questions == ("When do you open?", "", "Who?")
    assert found.rows[1] == ("2", "", "never")
    assert found.numbers == (2, 3, 4)


def test_columns_go_out_again_as_they_came(tmp_path):
    found = find_questions(_csv(tmp_path, "Question,for jane@firm.org", "When do you open?,today", "Who?,now"))
    assert found.columns == ("Question", "for jane@firm.org")


@pytest.mark.parametrize("header", ["Question", "Frage", "prompt"])
def test_a_single_column_with_a_header(tmp_path, header):
    found = find_questions(_csv(tmp_path, header, "When do you open?", "Who keeps the light?"))
    assert found.question_column == header
    assert found.questions == ("When do you open?", "Who keeps the light?")


def test_a_single_column_without_a_header_loses_no_question(tmp_path):
    found = find_questions(_csv(tmp_path, "When do you open?", "Who keeps the light?", "Why is it plum?"))
    assert found.questions == ("When do you open?", "Who keeps the light?", "Why is it plum?")


def test_a_column_named_by_hand(tmp_path):
    path = _csv(tmp_path, "Question,Customer asks", "old,When do you open?", "older,Who?")
    assert find_questions(path, question="customer asks").questions == ("When do you open?", "Who?")
    assert find_questions(path, question="B").questions == ("When do you open?", "Who?")
    with pytest.raises(SheetError, match='no column "Topic"') as caught:
        find_questions(path, question="Topic")
    assert '"Customer asks"' in caught.value.hint


def test_a_file_without_questions_is_a_clear_error(tmp_path):
    with pytest.raises(SheetError, match="no question"):
        find_questions(_csv(tmp_path, "Question,Answer", ",yes", ",no"))


@pytest.mark.parametrize(
    ("lines", "column"),
    [
        (("Question,Answer,Due", "Who?,,today", "When?, ,now"), 1),
        (("Antwort,Frage", ",Wer?", ",Wann?"), 0),
        (("Question,Answer", "Who?,Maren", "When?,"), None),
        (("Question,Note", "Who?,", "When?,"), None),
    ],
)
def test_an_empty_column_for_answers_is_found(tmp_path, lines, column):
    assert find_questions(_csv(tmp_path, *lines)).answer_column == column
