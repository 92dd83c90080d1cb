"""Separated text: where its columns end, and what is told of rows that do not come out even."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sheets import cells, only_table

from phinetune.errors import SheetError
from phinetune.sheet.read import read_tables

Write = Callable[..., Path]


class TestSeparatedText:
    def test_commas_in_sentences_do_not_hide_the_semicolon(self, text_file: Write) -> None:
        text = "question;answer\nWho, me?;Yes, you, of course\nWhy?;No reason, really\n"
        assert cells(text_file(text))[1] == ("Who, me?", "Yes, you, of course")

    def test_literal_quotation_marks_are_kept_when_the_columns_come_out_even(self, text_file: Write) -> None:
        assert cells(text_file('question\tanswer\nHow tall?\t"5 feet\nWhy?\tSo.\n'))[1] == ("How tall?", '"5 feet')

    def test_a_quotation_mark_never_closed_is_named_by_its_row(self, text_file: Write) -> None:
        text = 'question,answer\nWho?,"We,\nall\nof us\nWhy?,So.\n'
        with pytest.raises(SheetError, match="row 2: a quotation mark is opened and never closed"):
            read_tables(text_file(text))

    def test_text_cut_at_a_separator_is_told(self, text_file: Write) -> None:
        table = only_table(text_file("question,answer\nWho?,We, all of us\nWhy?,So.\nHow?,Thus.\n"))
        assert [(warning.code, warning.rows) for warning in table.warnings] == [("overlong_rows", (2,))]
