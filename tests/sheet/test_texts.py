"""Garbled letters, left-over marks, personal data, echoes and foreign rows are told by row, and clean texts are not."""

from __future__ import annotations

import pytest

from phinetune.sheet.findings import Pair
from phinetune.sheet.table import SheetWarning
from phinetune.sheet.texts import warn_of_texts

CLEAN = [Pair(f"Where is the key number {row} of the house?", f"It is under stone {row}.", row) for row in range(2, 30)]


def found(*texts: tuple[str, str]) -> dict[str, SheetWarning]:
    """The warnings for clean pairs and these, which stand in the rows from 100 on."""
    pairs = [*CLEAN, *(Pair(question, answer, row) for row, (question, answer) in enumerate(texts, start=100))]
    return {warning.code: warning for warning in warn_of_texts(pairs, len(pairs))}


def test_clean_pairs_give_nothing() -> None:
    assert found() == {}


def test_an_answer_that_is_its_question() -> None:
    assert found(("Why?", "why"))["answer_is_question"].rows == (100,)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("cafÃ©", "café"), ("itâ€™s", "it's"), ("GrÃ¶ÃŸe", "Größe"), ("ÐºÐ»ÑŽÑ‡", "ключ"), ("ðŸ˜€", "😀")],
)
def test_garbled_letters_are_told_with_what_they_should_be(wrong: str, right: str) -> None:
    warning = found(("What?", f"Say {wrong} twice"))["mojibake"]
    assert warning.rows == (100,)
    assert right in warning.notes[0].text.replace("’", "'")
    assert "wrong encoding" in warning.message


def test_letters_that_were_lost_are_told() -> None:
    assert found(("Wo?", "Bei M\ufffdller"))["mojibake"].notes[0].text == 'garbled letters: "M\ufffdller"'


@pytest.mark.parametrize(
    "text",
    ["Café à côté, « CAFÉ »", "NÃO, MAÇÃ", "„Ä“ ist ein Umlaut", "10 °C ± 5 µm", "Ключ под камнем", "naïve 😀 – “ok”"],
)
def test_letters_of_other_languages_are_not_garbled(text: str) -> None:
    assert "mojibake" not in found(("What?", text))


def test_left_over_marks_are_told_by_row() -> None:
    warnings = found(("What?", "It is <b>bold</b>"), ("Is it **so**?", "Yes"), ("<!-- old --> Who?", "We."))
    assert [(note.row, note.text) for note in warnings["html"].notes] == [
        (100, 'HTML left over: "</b>"'),
        (102, 'HTML left over: "<!-- old -->"'),
    ]
    assert [(note.row, note.text) for note in warnings["markdown"].notes] == [(101, 'Markdown left over: "**so**"')]


def test_personal_data_is_counted_and_never_whole() -> None:
    warning = found(("Who is jane@firm.org?", "Jane, +44 20 7946 0958."), ("How?", "Ask tom@firm.org"))["personal_data"]
    assert warning.rows == (100, 101)
    assert "e-mail address (2), phone number (1)" in warning.message
    told = warning.message + "".join(note.text for note in warning.notes)
    assert "e-mail address ja…" in told
    assert not any(secret in told for secret in ("jane@", "firm.org", "7946"))


def test_of_very_many_rows_no_more_are_told_than_decide() -> None:
    """2,000, or a tenth and one: each is looked through again for what is told of it."""
    same = ("Who is jane@firm.org, **really**?", "Jane <b>Doe</b> of the cafÃ©.")
    kinds = ("personal_data", "markdown", "html", "mojibake")
    few, many = (
        {each.code: each for each in warn_of_texts([Pair(*same, row) for row in range(2, 2 + count)], rows)}
        for count, rows in ((1999, 1999), (10_100, 30_000))
    )
    for kind in kinds:
        assert few[kind].rows == tuple(range(2, 2001))
        assert few[kind].message.startswith("1,999 pairs hold ")
        assert many[kind].rows == tuple(range(2, 2 + 3001))
        assert many[kind].message.startswith("At least 3,001 pairs hold (none was looked for after row 3002) ")


def test_no_other_finding_quotes_personal_data() -> None:
    asked = "jane@firm.org cafÃ© <b>tom@firm.org</b>"
    for warning in found((asked, asked)).values():
        assert "firm.org" not in warning.message + "".join(note.text for note in warning.notes)


def test_a_secret_is_not_quoted_without_what_tells_it() -> None:
    warnings = found(("What is it?", "The password: **hunter2** or cafÃ©hunter2"), ("Which?", "Password: cafÃ©hunter2"))
    assert set(warnings) == {"personal_data", "markdown", "mojibake"}
    assert "hunter2" not in warnings["markdown"].message + warnings["markdown"].notes[0].text
    assert "hunter2" not in warnings["mojibake"].notes[1].text


def test_rows_in_another_language() -> None:
    warning = found(
        ("Wo ist der Schlüssel für die Tür?", "Er ist unter dem Stein und nicht auf der Bank."),
        ("Where is the key to the house?", "Er ist unter dem Stein und nicht auf der Bank."),
    )["mixed_languages"]
    assert [note.text for note in warning.notes] == [
        "in German, most others in English",
        "the question is in English, the answer in German",
    ]


def japanese(*texts: tuple[str, str], count: int = 12) -> list[Pair]:
    """So many Japanese pairs, and these."""
    usual = [(f"{row}番目の灯台はどこにありますか？", f"それは{row}番目の島にあります。") for row in range(count)]
    return [Pair(question, answer, row) for row, (question, answer) in enumerate([*usual, *texts], start=2)]


def test_chinese_signs_alone_are_japanese_where_most_is() -> None:
    names = [
        ("所在地", "東京都港区芝公園"),
        ("営業時間", "午前九時から午後五時まで"),
        ("代表者はだれですか", "山田太郎社長"),
    ]
    assert "mixed_languages" not in {warning.code for warning in warn_of_texts(japanese(*names), 99)}


def test_a_japanese_row_among_chinese_ones_is_foreign() -> None:
    chinese = [(f"第{row}座灯塔在哪里", f"在第{row}个岛屿上面") for row in range(12)]
    (warning,) = [found for found in warn_of_texts(japanese(*chinese, count=1), 99) if found.code == "mixed_languages"]
    assert [note.text for note in warning.notes] == ["in Japanese, most others in Chinese"]


def test_a_sheet_of_translations_is_no_mix() -> None:
    pairs = [
        Pair(f"Say: where is the key number {row}?", f"Wo ist der Schlüssel Nummer {row} und die Tür?", row)
        for row in range(2, 40)
    ]
    assert warn_of_texts(pairs, len(pairs)) == []
