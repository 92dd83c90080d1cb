"""What comes more than once in a sheet is told by row, with the row that it repeats."""

from __future__ import annotations

from phinetune.sheet.findings import Pair
from phinetune.sheet.repeats import answers_repeat, warn_of_repeats
from phinetune.sheet.table import SheetWarning


def found(*texts: tuple[str, str]) -> dict[str, SheetWarning]:
    pairs = [Pair(question, answer, row) for row, (question, answer) in enumerate(texts, start=2)]
    return {warning.code: warning for warning in warn_of_repeats(pairs)}


def notes(warning: SheetWarning) -> list[tuple[int, str]]:
    return [(note.row, note.text) for note in warning.notes]


def test_different_pairs_give_nothing() -> None:
    assert found(*((f"What is number {row}?", f"It is {row}.") for row in range(200))) == {}


def test_a_pair_again() -> None:
    told = found(("Who?", "We."), ("Why?", "So."), ("Who?", "We."))
    assert set(told) == {"duplicate_pairs"}
    assert notes(told["duplicate_pairs"]) == [(4, "word for word like row 2")]


def test_a_question_again_in_other_letters() -> None:
    told = found(("Who?", "We."), ("who", "We."))
    assert set(told) == {"duplicate_questions"}
    assert notes(told["duplicate_questions"]) == [(3, "asks the same as row 2 and has the same answer")]


def test_a_question_with_two_answers() -> None:
    told = found(("Who?", "We."), ("Why?", "So."), ("who", "They."))
    assert set(told) == {"conflicting_answers"}
    assert notes(told["conflicting_answers"]) == [
        (2, "the same question is answered differently in row 4"),
        (4, "the same question is answered differently in row 2"),
    ]


def test_nearly_the_same_question() -> None:
    told = found(
        ("How do I reset my password?", "Press it."),
        ("How can I reset my pasword, please?", "Press it."),
        ("How do I reset a password", "Ask us."),
    )
    assert set(told) == {"near_duplicates"}
    assert notes(told["near_duplicates"]) == [
        (3, "asks nearly the same as row 2"),
        (4, "asks nearly the same as row 2 and is answered differently"),
    ]
    assert "1 of them have another answer" in told["near_duplicates"].message


def test_one_answer_to_many_questions() -> None:
    texts = [(f"What is the colour of thing {row}?", f"Colour {row}") for row in range(40)]
    texts += [(f"Who keeps thing {row}?", "Ask the office.") for row in range(10)]
    told = found(*texts)
    assert set(told) == {"repeated_answers"}
    assert told["repeated_answers"].rows == tuple(range(42, 52))
    assert (
        '"Ask the office." stands beside 10 different questions, 20% of all pairs' in told["repeated_answers"].message
    )


def test_labels_repeat_on_purpose() -> None:
    assert found(*((f"Is number {row} even?", "no" if row % 2 else "yes") for row in range(100))) == {}
    assert "repeated_answers" in found(*((f"Is number {row} big?", "no" if row else "yes") for row in range(100)))


def test_answers_repeat_where_most_questions_share_theirs_with_another_one() -> None:
    def repeat(*texts: tuple[str, str]) -> bool:
        return answers_repeat([Pair(question, answer, row) for row, (question, answer) in enumerate(texts)])

    facts = [("Who?", "We."), ("Which of us?", "we"), ("Where?", "Here."), ("At what place?", "Here.")]
    assert repeat(*facts)
    assert repeat(*facts, *((f"{row}?", f"It is {row}.") for row in range(3)))
    assert not repeat(*facts, *((f"{row}?", f"It is {row}.") for row in range(4)))
    assert not repeat(*[("Who?", "We."), ("who", "We.")] * 5)  # the same question again is no other one
    assert not repeat()
