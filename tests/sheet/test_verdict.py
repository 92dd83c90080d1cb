"""The verdict says whether to train, and what to mend first where not."""

from __future__ import annotations

import pytest

from phinetune.sheet.table import RowNote, SheetWarning
from phinetune.sheet.verdict import Level, give_verdict, warn_of_few


def warning(code: str, count: int) -> SheetWarning:
    rows = tuple(range(2, 2 + count))
    return SheetWarning(code, "…", rows, tuple(RowNote(row, "…") for row in rows))


def test_ready() -> None:
    verdict = give_verdict(600, 0, [])
    assert (verdict.level, verdict.text.partition(":")[0]) == (Level.READY, "Ready to train")
    assert "500 are ideal" in give_verdict(499, 0, []).text
    assert "500 are ideal" not in give_verdict(500, 0, []).text


@pytest.mark.parametrize(("count", "level"), [(1, Level.FEW), (99, Level.FEW), (100, Level.READY)])
def test_few(count: int, level: Level) -> None:
    assert give_verdict(count, 0, warn_of_few(count)).level is level


def test_look() -> None:
    assert give_verdict(500, 0, [warning("personal_data", 1)]).level is Level.LOOK
    assert give_verdict(500, 0, [warning("mojibake", 50)]).level is Level.LOOK
    assert give_verdict(500, 0, [SheetWarning("several_sheets", "…")]).level is Level.READY


@pytest.mark.parametrize("code", ["conflicting_answers", "mojibake", "html", "answers_cut", "answer_is_question"])
def test_mend_what_is_wrong_in_more_than_a_tenth(code: str) -> None:
    verdict = give_verdict(500, 0, [warning(code, 51)])
    assert verdict.level is Level.MEND
    assert "(51 rows)" in verdict.text


@pytest.mark.parametrize("code", ["empty_rows", "personal_data"])
def test_what_is_no_harm_is_never_mended_however_much_there_is(code: str) -> None:
    verdict = give_verdict(19, 0, [warning(code, 20), *warn_of_few(19)])
    assert (verdict.level, verdict.text.partition(":")[0]) == (Level.FEW, "Too few")


def test_skipped_rows_count_as_rows() -> None:
    assert give_verdict(400, 50, [warning("error_cells", 45)]).level is Level.LOOK
    assert give_verdict(400, 50, [warning("error_cells", 46)]).level is Level.MEND


def test_a_question_that_training_refuses_is_always_mended() -> None:
    assert give_verdict(500, 0, [warning("questions_too_long", 1)]).level is Level.MEND
