"""Pairs are clean, everything passed over is told with its row, and no question is on both sides of the split."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phinetune.errors import SheetError
from phinetune.sheet import Pair, PairTable, find_pairs, normalize_question, split
from phinetune.sheet.clean import clean
from phinetune.sheet.table import Row, Table, UnknownFormat

Write = Callable[..., Path]


def codes(found: PairTable) -> dict[str, tuple[int, ...]]:
    return {warning.code: warning.rows for warning in found.warnings}


def message(found: PairTable, code: str) -> str:
    (text,) = (warning.message for warning in found.warnings if warning.code == code)
    return text


class TestClean:
    @pytest.mark.parametrize(
        ("dirty", "cleaned"),
        [
            ("  a b\t", "a b"),
            ("a\u00a0b\u202fc", "a b c"),
            ("\u200ba\u200bb\ufeff", "ab"),
            ("\u3000a\u2009", "a"),
            ("a_x000D_\nb_x000D_", "a\nb"),
            ("a\r\nb\rc", "a\nb\nc"),
            ("a\x00\x07b", "ab"),
            ("first\n\n  second", "first\n\n  second"),
            ("“curly” – ok", "“curly” – ok"),
            ("می\u200cخواهم", "می\u200cخواهم"),
        ],
    )
    def test_examples(self, dirty: str, cleaned: str) -> None:
        assert clean(dirty) == cleaned

    @given(
        st.text(alphabet=st.sampled_from("ab_x0D \t\r\n\u00a0\u200b\u200d\u2028\u3000\ufeff\x00\x1c\x85é")) | st.text()
    )
    def test_is_idempotent(self, text: str) -> None:
        assert clean(clean(text)) == clean(text)


class TestNormalizedQuestion:
    @pytest.mark.parametrize(
        "same", ["what is it", "What is it?", " WHAT  IS\u00a0IT ?!", "Ｗhat is it", "“What” — is it…"]
    )
    def test_puts_variants_together(self, same: str) -> None:
        assert normalize_question(same) == "what is it"

    @pytest.mark.parametrize(("one", "other"), [("What is C#?", "What is C?"), ("क्या", "क्य"), ("?", "!"), ("5 %", "5")])
    def test_keeps_others_apart(self, one: str, other: str) -> None:
        assert normalize_question(one) != normalize_question(other)


class TestRows:
    def test_that_are_no_pair_are_told_with_row_and_reason(self, text_file: Write) -> None:
        found = find_pairs(
            text_file(
                "question,answer,note\n"
                "Who?,We.,\n"
                "Why?,\u00a0,\n"
                ",So.,\n"
                "\n"
                ",,only a note\n"
                "Where?,#N/A,\n"
                "When?,TBD,\n"
                "How?,Thus.,\n"
            )
        )
        assert found.pairs == (Pair("Who?", "We.", 2), Pair("How?", "Thus.", 9))
        assert [(skipped.row, skipped.reason) for skipped in found.skipped] == [
            (3, "question without an answer"),
            (4, "answer without a question"),
            (7, "error value #N/A in the answer"),
            (8, 'placeholder "TBD" as the answer'),
        ]
        assert codes(found) == {
            "empty_rows": (5, 6),
            "questions_without_answer": (3,),
            "answers_without_question": (4,),
            "error_cells": (7,),
            "placeholders": (8,),
            "few_pairs": (),
        }

    @pytest.mark.parametrize("placeholder", ["n/a", "(blank)", "Lorem ipsum dolor sit amet, consectetur."])
    def test_with_a_placeholder_are_skipped(self, text_file: Write, placeholder: str) -> None:
        found = find_pairs(text_file(f"question;answer\nWho?;We.\nWhy?;{placeholder}\n"))
        assert codes(found)["placeholders"] == (3,)
        assert found.skipped[0].reason == f'placeholder "{placeholder}" as the answer'
        assert len(found.pairs) == 1

    def test_with_a_likely_placeholder_are_used_and_told(self, text_file: Write) -> None:
        found = find_pairs(text_file("question;answer\nWho?;We are.\nWhy?;pending\n"))
        assert codes(found)["likely_placeholders"] == (3,)
        assert len(found.pairs) == 2

    def test_about_filler_text_are_pairs(self, text_file: Write) -> None:
        found = find_pairs(text_file("question;answer\nHow does Lorem ipsum begin?;Lorem ipsum dolor sit amet\n"))
        assert len(found.pairs) == 1

    def test_without_a_question_may_be_of_a_merged_cell(self, tmp_path: Path) -> None:
        book = openpyxl.Workbook()
        for row in (["question", "answer"], ["When?", "At nine."], [None, "On Sunday at ten."]):
            book.active.append(row)
        book.active.merge_cells("A2:A3")
        book.save(tmp_path / "merged.xlsx")
        found = find_pairs(tmp_path / "merged.xlsx")
        assert codes(found)["answers_without_question"] == (3,)
        assert message(found, "answers_without_question").endswith("a merged cell, write it in every row.")

    @pytest.mark.parametrize("answer", ["No", "0", "42", "nan bread", "A - B", "X!", "Yes?", "None.", "()", "(a)"])
    def test_with_a_short_answer_are_pairs(self, text_file: Write, answer: str) -> None:
        assert find_pairs(text_file(f"question;answer\nWho?;{answer}\n")).pairs[0].answer == answer

    def test_empty_at_the_end_are_not_counted(self, tmp_path: Path) -> None:
        book = openpyxl.Workbook()
        book.active.append(["question", "answer"])
        book.active.append(["Who?", "We."])
        book.active["A40000"] = "\u00a0"
        book.save(tmp_path / "long.xlsx")
        assert "empty_rows" not in codes(find_pairs(tmp_path / "long.xlsx"))

    def test_many_empty_between_are_counted_and_the_first_named(self, tmp_path: Path) -> None:
        book = openpyxl.Workbook()
        book.active.append(["question", "answer"])
        book.active["A40001"], book.active["B40001"] = "Who?", "We."
        book.save(tmp_path / "gap.xlsx")
        found = find_pairs(tmp_path / "gap.xlsx")
        assert found.pairs[0].row == 40001
        assert message(found, "empty_rows").startswith("39,999 ")
        assert codes(found)["empty_rows"] == tuple(range(2, 22))

    def test_an_input_follows_its_instruction(self, text_file: Write) -> None:
        found = find_pairs(text_file("instruction,input,output\nTranslate,Hund,dog\nSing,,La la\n"))
        assert [pair.question for pair in found.pairs] == ["Translate\n\nHund", "Sing"]
        assert found.question_column == "instruction + input"


class TestFindings:
    def test_repeated_pairs_are_used_and_told(self, text_file: Write) -> None:
        found = find_pairs(text_file("question,answer\nWho?,We.\nWho?,We.\nWho?, We. \n"))
        assert len(found.pairs) == 3
        assert codes(found)["duplicate_pairs"] == (3, 4)
        assert "conflicting_answers" not in codes(found)

    def test_answers_in_a_format_of_their_own_are_used_and_told(self, tmp_path: Path) -> None:
        book = openpyxl.Workbook()
        for row in (["question", "answer"], [1.5, "We."], ["Share?", 0.15], ["Cost?", 1234.5], ["Year?", 1887]):
            book.active.append(row)
        for cell, code in (("A2", "#,##0.00"), ("B3", "0%"), ("B4", "#,##0.00 €")):
            book.active[cell].number_format = code
        book.save(tmp_path / "formats.xlsx")
        found = find_pairs(tmp_path / "formats.xlsx")
        assert [pair.answer for pair in found.pairs] == ["We.", "15%", "1234.5", "1887"]
        assert codes(found)["own_format"] == (4,)
        assert 'such as "1234.5" (Sheet, row 4)' in message(found, "own_format")

    def test_numbers_whose_look_is_not_known_are_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = [("question", "answer"), ("Share?", UnknownFormat("0.15")), ("Who?", "We.")]
        table = Table("FAQ", tuple(Row(number, cells) for number, cells in enumerate(rows, start=1)))
        monkeypatch.setattr("phinetune.sheet.pairs.read_hashed", lambda *_: ([table], ""))
        found = find_pairs("faq.xls")
        assert codes(found)["unknown_format"] == (2,)
        assert 'such as "0.15" (FAQ, row 2)' in message(found, "unknown_format")
        assert "is not read from .xls. Save it as .xlsx" in message(found, "unknown_format")

    def test_conflicting_answers_are_used_and_told(self, text_file: Write) -> None:
        found = find_pairs(text_file("question,answer\nWho?,We.\nWhy?,So.\nwho,They.\n"))
        assert len(found.pairs) == 3
        assert codes(found)["conflicting_answers"] == (2, 4)
        assert '"Who?" (row 2)' in message(found, "conflicting_answers")

    @pytest.mark.parametrize(("count", "words"), [(1, "only 1 pair"), (9, "far too few"), (99, "only 99 pairs")])
    def test_few_pairs_are_told(self, text_file: Write, count: int, words: str) -> None:
        lines = "\n".join(f"What is {index}?,Number {index}" for index in range(count))
        assert words in message(find_pairs(text_file(f"question,answer\n{lines}\n")), "few_pairs")

    def test_enough_clean_pairs_give_no_warning(self, text_file: Write) -> None:
        lines = "\n".join(f"What is {index}?,Number {index}" for index in range(100))
        assert find_pairs(text_file(f"question,answer\n{lines}\n")).warnings == ()


class TestAccount:
    def test_as_json(self, workbook: Write) -> None:
        rows = [["Nr", "Question", "Answer"], [1, "Who?", "We."], [2, "Why?", ""], [3, "How?", "Thus."]]
        found = find_pairs(workbook({"FAQ": rows}, "faq.xlsx"))
        account = json.loads(json.dumps(found.to_json()))
        assert account == {
            "file": "faq.xlsx",
            "sheet": "FAQ",
            "header_row": 1,
            "question_column": "Question",
            "answer_column": "Answer",
            "ignored_columns": ["Nr"],
            "pairs": 2,
            "skipped": [{"row": 3, "reason": "question without an answer"}],
            "warnings": [
                {"code": warning.code, "message": warning.message, "rows": list(warning.rows)}
                for warning in found.warnings
            ],
        }

    def test_of_several_sheets_names_the_sheet_of_a_row(self, workbook: Write) -> None:
        rows = [["Question", "Answer"], ["Who?", "We."], ["Why?", ""]]
        found = find_pairs(workbook({"One": rows, "Two": rows}))
        assert [(pair.sheet, pair.row) for pair in found.pairs] == [("One", 2), ("Two", 2)]
        assert found.to_json()["sheet"] == ["One", "Two"]
        assert [skipped["sheet"] for skipped in found.to_json()["skipped"]] == ["One", "Two"]

    def test_limit_keeps_the_first(self, text_file: Write) -> None:
        path = text_file("question,answer\nWho?,We.\nWhy?,So.\nHow?,Thus.\n")
        assert [pair.row for pair in find_pairs(path, limit=2).pairs] == [2, 3]

    def test_without_any_pair_says_why(self, text_file: Write) -> None:
        with pytest.raises(SheetError) as caught:
            find_pairs(text_file("question,answer\nWho?,\nWhy?,tbd\n"))
        assert 'columns "question" and "answer" were found in row 1' in caught.value.message
        assert "1 × question without an answer, 1 × placeholder" in caught.value.message


def pairs_of(questions: Sequence[str]) -> list[Pair]:
    return [Pair(question, f"answer {row}", row) for row, question in enumerate(questions, start=2)]


QUESTIONS = st.lists(st.sampled_from(["Who?", "who", "WHO ?", "Why?", "why!", "How", "Where", "When"]), max_size=40)
SHARES = st.floats(0.01, 0.99)
SEEDS = st.integers(0, 2**32 - 1)


class TestSplit:
    def test_holds_out_the_share(self) -> None:
        parts = split(pairs_of([f"Question number {index}?" for index in range(490)]), 0.1, 42)
        assert (len(parts.train), len(parts.validation)) == (441, 49)

    def test_is_the_same_on_every_machine(self) -> None:
        parts = split(pairs_of([f"Question number {index}?" for index in range(20)]), 0.2, 42)
        assert [pair.row for pair in parts.validation] == [6, 7, 11, 16]

    def test_differs_by_seed(self) -> None:
        pairs = pairs_of([f"Question number {index}?" for index in range(100)])
        assert split(pairs, 0.1, 1) != split(pairs, 0.1, 2)

    def test_one_question_leaves_nothing_to_hold_out(self) -> None:
        pairs = pairs_of(["Who?", "who", "WHO!"])
        assert split(pairs, 0.5, 42).validation == ()
        assert split(pairs, 0.5, 42).train == tuple(pairs)

    def test_three_rows_hold_out_one(self) -> None:
        assert len(split(pairs_of(["Who?", "Why?", "How?"]), 0.1, 42).validation) == 1

    def test_nothing_splits_into_nothing(self) -> None:
        assert split([], 0.1, 42).train == split([], 0.1, 42).validation == ()

    @given(QUESTIONS, SHARES, SEEDS)
    def test_never_puts_a_question_on_both_sides(self, questions: list[str], share: float, seed: int) -> None:
        parts = split(pairs_of(questions), share, seed)
        train, validation = (
            {normalize_question(pair.question) for pair in part} for part in (parts.train, parts.validation)
        )
        assert not train & validation
        if len(train | validation) > 1:
            assert train
            assert validation

    @given(QUESTIONS, SHARES, SEEDS)
    def test_keeps_every_pair_once_in_order(self, questions: list[str], share: float, seed: int) -> None:
        pairs = pairs_of(questions)
        parts = split(pairs, share, seed)
        assert sorted([*parts.train, *parts.validation], key=lambda pair: pair.row) == pairs
        for part in (parts.train, parts.validation):
            assert list(part) == sorted(part, key=lambda pair: pair.row)

    @given(QUESTIONS, SHARES, SEEDS)
    def test_is_deterministic(self, questions: list[str], share: float, seed: int) -> None:
        assert split(pairs_of(questions), share, seed) == split(pairs_of(questions), share, seed)

    @given(st.integers(2, 300), SHARES, SEEDS)
    def test_is_as_near_to_the_share_as_different_questions_allow(self, count: int, share: float, seed: int) -> None:
        parts = split(pairs_of([f"Question number {index}?" for index in range(count)]), share, seed)
        assert len(parts.validation) == min(max(1, round(share * count)), count - 1)

    def test_keeps_nearly_the_same_questions_together(self) -> None:
        near = ("How do I reset my password?", "How can I reset the pasword, please?")
        asked = [*(f"What does part {index} do?" for index in range(40)), *near]
        held = [
            sum(pair.question in near for pair in split(pairs_of(asked), 0.3, seed).validation) for seed in range(40)
        ]
        assert set(held) == {0, 2}

    def test_where_all_are_nearly_the_same_only_the_same_stay_together(self) -> None:
        parts = split(pairs_of(["Where is the door?", "Where's the door", "where is a door"]), 0.3, 1)
        assert len(parts.validation) == 1
