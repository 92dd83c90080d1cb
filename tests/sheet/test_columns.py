"""The two columns are found by their names in many languages, else by what they hold, else named by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from phinetune.errors import SheetError
from phinetune.sheet.columns import choose_columns
from phinetune.sheet.header import Columns, letter
from phinetune.sheet.table import Table, make_rows

TEXTS = [["How far is the moon?", "About 384,400 km away."], ["How old is the sun?", "Some 4.6 billion years."]]


def table(*rows: Sequence[object], name: str | None = None, hidden: bool = False) -> Table:
    return Table(name, make_rows(enumerate(rows, start=1)), hidden=hidden)


def choose(*tables: Table, **by_hand: str) -> tuple[Columns, dict[str, str]]:
    """The columns of the first table used, and the warnings by code."""
    chosen, warnings = choose_columns(tables, **by_hand)
    return chosen[0], {warning.code: warning.message for warning in warnings}


def names(columns: Columns) -> tuple[str, str]:
    return columns.question_name, columns.answer_name


class TestNames:
    @pytest.mark.parametrize(
        "header",
        [
            ("Question", "Answer"), ("Q", "A"), ("questions", "answers"), ("user", "assistant"), ("prompt", "response"),
            ("Prompt", "Completion"), ("instruction", "output"), ("input", "output"), ("query", "reply"),
            ("human", "bot"), ("human", "gpt"), ("problem", "solution"),
            ("Frage", "Antwort"), ("Question", "Réponse"), ("QUESTION", "REPONSE"), ("Pregunta", "Respuesta"),
            ("Pergunta", "Resposta"), ("Domanda", "Risposta"), ("Vraag", "Antwoord"), ("Pytanie", "Odpowiedź"),
            ("Вопрос", "Ответ"), ("Запитання", "Відповідь"), ("Soru", "YANIT"), ("SORU", "CEVAP"), ("سؤال", "جواب"),
            ("السؤال", "الإجابة"), ("שאלה", "תשובה"), ("प्रश्न", "उत्तर"), ("问题", "答案"), ("問題", "答案"),
            ("質問", "回答"), ("질문", "답변"), ("Câu hỏi", "Trả lời"), ("Pertanyaan", "Jawaban"), ("Fråga", "Svar"),
        ],
    )  # fmt: skip
    def test_are_known_whichever_side_they_stand(self, header: tuple[str, str]) -> None:
        for mirrored in (False, True):
            order = -1 if mirrored else 1
            columns, warnings = choose(table(header[::order], *(row[::order] for row in TEXTS)))
            assert names(columns) == header
            assert columns.header.row == 1
            assert warnings == {}

    @pytest.mark.parametrize(
        "header", [" Question\u00a0", "\ufeffquestion:", "QUES\u200bTION", "“Question”", "* Question *"]
    )
    def test_are_known_through_space_case_and_punctuation(self, header: str) -> None:
        columns, warnings = choose(table([header, "answer"], *TEXTS))
        assert columns.question == (0,)
        assert warnings == {}

    @pytest.mark.parametrize(
        ("question", "answer"),
        [
            ("Customer question", "Best Answer"),
            ("Question text", "Answer text"),
            ("questionText", "answer_text"),
            ("Kundenfrage", "Antworttext"),
            ("常见问题", "标准答案"),
            ("Question 1", "Answer1"),
        ],
    )
    def test_that_hold_such_a_word_are_taken_and_told(self, question: str, answer: str) -> None:
        columns, warnings = choose(table(["Topic", question, answer], *(["space", *row] for row in TEXTS)))
        assert names(columns) == (question, answer)
        assert list(warnings) == ["similar_columns"]
        assert f'"{question}"' in warnings["similar_columns"]

    def test_exact_names_win_over_similar_ones(self) -> None:
        header = ["Question ID", "Question type", "My question", "Question", "Wrong answer", "Answer"]
        rows = [
            [f"Q-{index}", "simple", "what", question, "no", answer] for index, (question, answer) in enumerate(TEXTS)
        ]
        columns, warnings = choose(table(header, *rows))
        assert names(columns) == ("Question", "Answer")
        assert columns.ignored == ("Question ID", "Question type", "My question", "Wrong answer")
        assert warnings == {}

    def test_about_something_else_are_no_candidates(self) -> None:
        header = ["Question ID", "Incorrect answers", "Question", "Correct answer", "Answer date"]
        rows = [[index, "no", *row, "2024-01-01"] for index, row in enumerate(TEXTS)]
        assert names(choose(table(header, *rows))[0]) == ("Question", "Correct answer")

    def test_below_titles_and_notes(self) -> None:
        title = ["Questions and answers of the front desk"]
        columns, _ = choose(
            table(
                title,
                ["Exported on 12 March", "by the office"],
                [],
                ["No.", "Question", "Answer"],
                *([index, *row] for index, row in enumerate(TEXTS)),
            )
        )
        assert (columns.header.row, *names(columns)) == (4, "Question", "Answer")
        assert len(columns.header.data) == len(TEXTS)

    PAIR = ("Who is a typical user?", "Anyone with a reply to give.")

    @pytest.mark.parametrize("header", [("Text", "Ergebnis"), None])
    @pytest.mark.parametrize("place", [0, 1, 4])
    def test_are_no_sentences(self, header: tuple[str, str] | None, place: int) -> None:
        pairs = [[f"What is in room {number}?", f"A lamp and {number} chairs."] for number in range(5)]
        pairs.insert(place, list(self.PAIR))
        columns, warnings = choose(table(*([header] if header else []), *pairs))
        assert len(columns.header.data) == len(pairs)
        assert "rows_above_header" not in warnings

    @pytest.mark.parametrize("header", [("Your question?", "Our answer:"), ("Ihre Frage?", "Unsere Antwort!")])
    def test_may_end_like_a_sentence_when_they_are_short(self, header: tuple[str, str]) -> None:
        columns, _ = choose(table(header, *TEXTS))
        assert (columns.header.row, *names(columns)) == (1, *header)

    @pytest.mark.parametrize("first", ["Contact of Jane", "Customer Jane"])
    def test_hold_no_personal_data(self, first: str) -> None:
        longer = [[f"{question} Tell me all.", f"{answer} That is all there is."] for question, answer in TEXTS]
        columns, _ = choose(table([first, "bot at jane.doe@firm.org"], *longer))
        assert (columns.header.row, *names(columns)) == (None, "A", "B")

    def test_show_no_personal_data(self) -> None:
        columns, warnings = choose(
            table(["Question", "to jane@firm.org", "tom@firm.org"], *([*row, "x"] for row in TEXTS))
        )
        assert (*names(columns), *columns.ignored) == ("Question", "to ja…", "to…")
        assert "firm.org" not in warnings["guessed_columns"]

    def test_are_shown_by_their_beginning(self) -> None:
        columns, _ = choose(table(["Question", "Answer", "+1" * 100_000], *([*row, "x"] for row in TEXTS)))
        (ignored,) = columns.ignored
        assert len(ignored) <= 201

    def test_with_texts_above_them_are_told(self) -> None:
        columns, warnings = choose(table(["Our FAQ"], *TEXTS, ["typical user", "reply to give"], *TEXTS))
        assert columns.header.row == 4
        assert warnings["rows_above_header"].startswith("2 rows above the column names hold text in both columns")
        assert "rows_above_header" not in choose(table(["Our FAQ", 2024], ["user text", "bot text"], *TEXTS))[1]

    @pytest.mark.parametrize("context", ["input", "context"])
    def test_an_instruction_takes_its_input_along(self, context: str) -> None:
        columns, _ = choose(table(["instruction", context, "output"], ["Translate", "Hund", "dog"]))
        assert names(columns) == (f"instruction + {context}", "output")
        assert columns.ignored == ()


class TestContent:
    def test_the_first_two_texts_are_taken_and_told(self) -> None:
        rows = [[305 + index, "2024-01-01", f"T-{index}", *row] for index, row in enumerate(TEXTS)]
        columns, warnings = choose(table(["task_id", "day", "ticket", "text", "code"], *rows))
        assert names(columns) == ("text", "code")
        assert '"text" was taken as the question and "code" as the answer' in warnings["guessed_columns"]
        assert "Row 1 was read as the column names" in warnings["guessed_columns"]

    def test_categories_are_no_texts(self) -> None:
        rows = [
            ["printer", "open", f"Printer {index} does not print", f"Turn switch {index} on"] for index in range(12)
        ]
        columns, _ = choose(table(["Kind", "State", "What happened", "What to do"], *rows))
        assert names(columns) == ("What happened", "What to do")

    def test_one_known_name_leaves_the_other_to_content(self) -> None:
        columns, warnings = choose(table(["Explanation", "Question"], *(row[::-1] for row in TEXTS)))
        assert names(columns) == ("Question", "Explanation")
        assert list(warnings) == ["guessed_columns"]

    def test_without_a_header_row_columns_are_letters(self) -> None:
        columns, warnings = choose(table(*TEXTS))
        assert (columns.header.row, *names(columns)) == (None, "A", "B")
        assert len(columns.header.data) == len(TEXTS)
        assert "no_header" in warnings

    def test_one_column_is_too_few(self) -> None:
        with pytest.raises(SheetError, match='ound one column "Question", two are needed: question and answer'):
            choose(table(["Question"], *([question] for question, _ in TEXTS)))

    def test_numbers_are_no_pairs(self) -> None:
        with pytest.raises(SheetError, match="No column holds text"):
            choose(table(["id", "value"], [1, 2.5], [2, 3.5]))


class TestByHand:
    FAQ = table(["Topic", "Customer says", "We say", "Answer"], *(["sky", *row, "x"] for row in TEXTS))

    @pytest.mark.parametrize(
        ("question", "answer"),
        [("Customer says", "We say"), ("customer  SAYS ", "we say"), ("B", "c"), ("2", "3"), ("b", "We say")],
    )
    def test_header_letter_or_number(self, question: str, answer: str) -> None:
        columns, warnings = choose(self.FAQ, question=question, answer=answer)
        assert names(columns) == ("Customer says", "We say")
        assert warnings == {}

    def test_a_header_wins_over_a_letter(self) -> None:
        columns, _ = choose(table(["B", "A"], *TEXTS), question="B", answer="A")
        assert (columns.question, columns.answer) == ((0,), 1)

    def test_name_and_letter_together(self) -> None:
        columns, _ = choose(
            table(["A title"], [], ["Says", "Topic", "Told"], ["Who?", "x", "We."]), question="says", answer="C"
        )
        assert (columns.header.row, *names(columns)) == (3, "Says", "Told")

    def test_numbers_are_not_looked_for_in_the_rows(self) -> None:
        columns, _ = choose(table(["1", "2"], ["Question", "Answer"], *TEXTS, ["2", "1"]), question="2", answer="1")
        assert columns.header.row == 2
        assert names(columns) == ("Answer", "Question")

    def test_short_names_below_a_title(self) -> None:
        columns, _ = choose(
            table(["A title"], ["Me", "Bot"], *(["We", "So"], ["I", "Yes"])), question="me", answer="bot"
        )
        assert columns.header.row == 2

    def test_letters_without_a_header_row(self) -> None:
        columns, _ = choose(table(*TEXTS), answer="A")
        assert (columns.header.row, *names(columns)) == (None, "B", "A")

    def test_the_other_column_is_found(self) -> None:
        assert names(choose(self.FAQ, question="Customer says")[0]) == ("Customer says", "Answer")

    def test_a_name_that_does_not_exist_lists_those_that_do(self) -> None:
        with pytest.raises(SheetError) as caught:
            choose(self.FAQ, question="Customer", answer="We say")
        assert 'no column "Customer"' in caught.value.message
        assert '"Topic", "Customer says", "We say", "Answer"' in caught.value.hint

    @pytest.mark.parametrize("place", ["E", "0", "5", "-1", ""])
    def test_a_place_beyond_the_columns_does_not_exist(self, place: str) -> None:
        with pytest.raises(SheetError, match="no column"):
            choose(self.FAQ, question=place, answer="We say")

    def test_one_column_cannot_be_both(self) -> None:
        with pytest.raises(SheetError, match='the same column "We say"'):
            choose(self.FAQ, question="C", answer="We say")

    def test_the_header_is_where_the_names_stand(self) -> None:
        columns, _ = choose(table(["A title"], [], ["Says", "Told"], *TEXTS), question="says", answer="told")
        assert columns.header.row == 3


class TestSheets:
    HEADER = ("Question", "Answer")

    def test_with_the_same_header_are_used_together_and_told(self) -> None:
        tables = [table(self.HEADER, *TEXTS, name="One"), table(["question ", "ANSWER"], *TEXTS, name="Two")]
        chosen, warnings = choose_columns(tables)
        assert [columns.table.name for columns in chosen] == ["One", "Two"]
        assert [warning.code for warning in warnings] == ["several_sheets"]
        assert '"One", "Two"' in warnings[0].message

    def test_with_other_columns_are_left_out_and_told(self) -> None:
        notes = table(["Remark", "Person"], ["Something was said", "somebody"], name="Notes")
        columns, warnings = choose(notes, table(self.HEADER, *TEXTS, name="FAQ"))
        assert columns.table.name == "FAQ"
        assert '"Notes"' in warnings["unused_sheets"]

    def test_hidden_ones_wait_to_be_named(self) -> None:
        old = table(self.HEADER, *TEXTS, name="Old", hidden=True)
        new = table(self.HEADER, *TEXTS, name="New")
        assert choose(old, new)[0].table.name == "New"
        assert '"Old"' in choose(old, new)[1]["unused_sheets"]
        assert choose(old, new, sheet="old")[0].table.name == "Old"
        assert choose(old)[0].table.name == "Old"

    def test_a_sheet_that_does_not_exist_lists_those_that_do(self) -> None:
        with pytest.raises(SheetError) as caught:
            choose(table(self.HEADER, *TEXTS, name="FAQ"), sheet="Fak")
        assert 'no sheet "Fak"' in caught.value.message
        assert '"FAQ"' in caught.value.hint

    def test_only_workbooks_have_them(self) -> None:
        with pytest.raises(SheetError, match="not a workbook"):
            choose(table(self.HEADER, *TEXTS), sheet="FAQ")


def test_letters_are_those_of_a_spreadsheet() -> None:
    assert [letter(column) for column in (0, 25, 26, 701, 702, 16383)] == ["A", "Z", "AA", "ZZ", "AAA", "XFD"]
