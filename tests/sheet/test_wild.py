"""Twenty files as they come from offices: every one is read right or refused with the right words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from phinetune.errors import SheetError
from phinetune.sheet import PairTable, find_pairs


def shared_sheets() -> Path:
    return Path(__file__).parents[2].parent / "shared" / "sheets"


def wild_files() -> list[dict[str, Any]]:
    listing = shared_sheets() / "wild" / "WILD.json"
    return json.loads(listing.read_text(encoding="utf-8")) if listing.is_file() else []


pytestmark = pytest.mark.skipif(not shared_sheets().is_dir(), reason="the shared sheets are not on this machine")

REFUSED_BECAUSE = {
    "10b_formulas_no_cache.xlsx": (
        "40 answers are formulas without a stored result",
        "Open the file in Excel, save it",
    ),
    "20_empty.xlsx": ("has no rows", "a pair in each row"),
    "20b_header_only.xlsx": ('columns "question" and "answer" were found', "below the header"),
    "21_truncated.xlsx": ("is damaged", "open it in Excel"),
    "22_password.xlsx": ("protected by a password", "remove the password"),
    "23_one_column.xlsx": ('found one column "Question", two are needed: question and answer', "in another"),
}


def rows_of(found: PairTable, code: str) -> int:
    return sum(len(warning.rows) for warning in found.warnings if warning.code == code)


def test_all_files_are_here() -> None:
    files = wild_files()
    assert len(files) == 20
    assert {file["file"] for file in files if file["verdict"] == "reject"} == set(REFUSED_BECAUSE)


@pytest.mark.parametrize("wild", wild_files(), ids=lambda wild: wild["file"])
def test_wild_file(wild: dict[str, Any]) -> None:
    path = shared_sheets() / "wild" / wild["file"]
    if wild["verdict"] == "reject":
        with pytest.raises(SheetError) as caught:
            find_pairs(path)
        message, hint = REFUSED_BECAUSE[wild["file"]]
        assert message in caught.value.message
        assert hint in caught.value.hint
        return

    found = find_pairs(path)
    account = found.to_json()
    assert (account["sheet"], account["header_row"]) == (wild["sheet"], wild["header_row"])
    assert (account["question_column"], account["answer_column"], account["pairs"]) == (
        wild["q"],
        wild["a"],
        wild["pairs"],
    )
    assert rows_of(found, "questions_without_answer") == wild.get("q_only", 0)
    assert rows_of(found, "answers_without_question") == wild.get("a_only", 0)
    assert rows_of(found, "error_cells") == wild.get("error_cells", 0)
    assert rows_of(found, "placeholders") == wild.get("placeholders", 0)
    assert rows_of(found, "multi_turn") == wild.get("multi_turn", 0)
    if "unique_pairs" in wild:
        assert rows_of(found, "duplicate_pairs") == wild["pairs"] - wild["unique_pairs"]
        told = next(warning.message for warning in found.warnings if warning.code == "conflicting_answers")
        assert told.startswith(f"{wild['conflicting_questions']} questions ")
    if "non_ascii" in wild:
        assert sum(not (pair.question + pair.answer).isascii() for pair in found.pairs) == wild["non_ascii"]


def test_no_wild_pair_is_dirty() -> None:
    accepted = [wild["file"] for wild in wild_files() if wild["verdict"] == "accept"]
    assert accepted
    for file in accepted:
        for pair in find_pairs(shared_sheets() / "wild" / file).pairs:
            for text in (pair.question, pair.answer):
                assert text
                assert text == text.strip()
                assert text.lower() not in ("nan", "none")
                assert not any(
                    trace in text for trace in ("\u00a0", "\u200b", "\ufeff", "\r", "_x000D_", "Ã", "\ufffd")
                )


@pytest.mark.parametrize(
    ("file", "columns"),
    [
        ("chatterbot_en.xlsx", ("question", "answer")),
        ("mbpp_code.xlsx", ("text", "code")),
        ("truthfulqa.xlsx", ("Question", "Best Answer")),
    ],
)
def test_reference_sheet(file: str, columns: tuple[str, str]) -> None:
    found = find_pairs(shared_sheets() / file)
    assert (found.question_column, found.answer_column) == columns
    assert len(found.pairs) == 490
    assert found.skipped == ()
