"""Questions in nearly the same words come together; a word of meaning, a number or an order keeps them apart."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phinetune.sheet import find_pairs
from phinetune.sheet.near_duplicates import near_duplicates

HANDBOOK = Path(__file__).parents[2] / "examples" / "handbook.xlsx"


def together(one: str, other: str, *, same_answer: bool = False) -> bool:
    return near_duplicates([(one, "yes"), (other, "yes" if same_answer else "no")]) == [[0, 1]]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Who?", " who ?!"),
        ("How do I reset my password?", "How do I reset my pasword?"),
        ("How do I reset my password?", "How do I reset my passwrod?"),
        ("How do I reset my password?", "How can I reset the password, please?"),
        ("How do I reset my pasword on the webiste?", "How do I reset my password on the website?"),
        ("What are your opening hours?", "what are the opening hour"),
        ("What is the refund policy?", "What's your refund policy"),
        ("Why can't you eat?", "Why can you not eat?"),
        ("If it rains, what happens?", "What happens if it rains?"),
        ("Wo ist der Schlüssel?", "Wo ist bitte mein Schlüssel?"),
        ("Où est la clé du garage ?", "Où est une clé de garage ?"),
        ("Где находится ключ?", "Где находится ключь?"),
    ],
)
def test_nearly_the_same(one: str, other: str) -> None:
    assert together(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is the capital of France?", "What is the capital of Spain?"),
        ("What is 12 + 5?", "What is 12 + 6?"),
        ("Which port does version 2019 use?", "Which port does version 2020 use?"),
        ("Is it safe to swim here?", "Is it not safe to swim here?"),
        ("Convert miles to metres.", "Convert metres to miles."),
        ("Is this legal?", "Is this illegal?"),
        ("Where is the pan?", "Where is the pin?"),
        ("What is the maximum of a list?", "What is the minimum of a list?"),
        ("Who made it?", "Why made it?"),
        ("What are you?", "What is it?"),
        ("What is it?", "What is this for?"),
        ("Who are you?", "Who is it for?"),
        ("What does vitamin A do?", "What does vitamin D do?"),
        ("Do you have size S?", "Do you have size L?"),
        ("请问北京有多少人口", "请问南京有多少人口"),
    ],
)
def test_not_the_same(one: str, other: str) -> None:
    assert not together(one, other)


def test_one_word_may_differ_where_the_answer_is_the_same_too() -> None:
    one = "Which papers do you need for opening a business bank account in Germany?"
    other = one.replace("papers", "documents")
    assert together(one, other, same_answer=True)
    assert not together(one, other)


def test_one_word_may_differ_in_a_paragraph_but_no_number() -> None:
    words = [f"{letter}{vowel}word" for letter in "bcdfghjklm" for vowel in "aeu"]
    text = " ".join(words)
    assert together(text, text.replace("faword", "something"))
    assert not together(f"{text} 17", f"{text} 18")


def test_groups_are_in_order_and_hold_all_members() -> None:
    asked = ["Where is the door?", "Why?", "Where's the door", "Who?", "where is a door please", "who"]
    assert near_duplicates([(question, "") for question in asked]) == [[0, 2, 4], [3, 5]]


def test_a_sheet_of_paraphrases_has_none() -> None:
    pairs = find_pairs(HANDBOOK).pairs
    assert len(pairs) == 490
    assert near_duplicates([(pair.question, pair.answer) for pair in pairs]) == []


@given(st.lists(st.text(alphabet="ab c?1é", max_size=12), max_size=12))
def test_every_place_is_in_one_group_at_most(questions: list[str]) -> None:
    places = [place for group in near_duplicates([(question, "") for question in questions]) for place in group]
    assert len(places) == len(set(places))
    assert all(0 <= place < len(questions) for place in places)


def test_groups_do_not_depend_on_the_hashes_of_the_process() -> None:
    draw = random.Random(3)
    words = ["".join(draw.choices("abcdef", k=6)) for _ in range(40)]
    pairs = [(" ".join(draw.choices(words, k=draw.choice((3, 8, 24)))), draw.choice(words)) for _ in range(300)]
    code = f"from phinetune.sheet.near_duplicates import near_duplicates; print(near_duplicates({pairs!r}))"
    printed = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert printed == {f"{near_duplicates(pairs)}\n"}
