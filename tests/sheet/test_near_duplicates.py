"""Questions in nearly the same words come together; a word of meaning, a number or an order keeps them apart."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phinetune.sheet import find_pairs
from phinetune.sheet.findings import Pair
from phinetune.sheet.near_duplicates import near_duplicates

HANDBOOK = Path(__file__).parents[2] / "examples" / "handbook.xlsx"


def together(one: str, other: str, *, same_answer: bool = False) -> bool:
    return near_duplicates([Pair(one, "yes", 2), Pair(other, "yes" if same_answer else "no", 3)]) == [[0, 1]]


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


# Written by hand as people write: the same asked again, and what looks alike and asks something else.
REWORDED = [
    ("What is the maximum file size for uploads?", "What is the max file size for uploads?"),
    ("How many vacation days do I get per year?", "How many vacation days do I get each year?"),
    ("How do I install the printer driver on Windows?", "How do I install printer drivers on a Windows PC?"),
    ("How do I change my delivery address?", "How do I change the address of my delivery?"),
    ("Where can I park my bike?", "Where can I park my bikes?"),
    ("What time does the canteen open?", "At what time does the canteen open?"),
    ("How do I cancel my subscription?", "How can I cancel a subscription?"),
    ("Can I bring my dog to the office?", "Can I bring a dog into the office?"),
    ("How long does the battery last on a full charge?", "On a full charge, how long does the battery last?"),
    ("Who do I contact about a lost badge?", "Whom do I contact about a lost badge?"),
    ("How often should the water filter be replaced?", "How often should I replace the water filter?"),
    ("Is there a discount for students?", "Is there any discount for students?"),
    ("How do I update the firmware of the router?", "How do I update the router's firmware?"),
    ("What is the phone number of the front desk?", "What is the front desk's phone number?"),
    ("How do I export my data as a CSV file?", "How do I export my data to a CSV file?"),
    ("When will my refund arrive?", "When does my refund arrive?"),
    ("Which browsers are supported?", "Which browsers are currently supported?"),
    ("How do I turn off notifications?", "How do I turn notifications off?"),
    (
        "What documents do I need for a parental leave request?",
        "Which documents do I need for a parental leave request?",
    ),
    ("How do I book a meeting room?", "How do I reserve a meeting room?"),
    ("How do I connect my laptop to the projector?", "How do I connect a laptop to the projector?"),
    ("What is the deadline for the application?", "What is the application deadline?"),
    ("How much does shipping cost?", "How much does the shipping cost?"),
    ("Where do I find the invoice for my order?", "Where can I find my order's invoice?"),
    ("How many people work at the company?", "How many people work in the company now?"),
    ("Do I have to pay for parking?", "Must I pay for parking?"),
    ("Can guests use the gym?", "Can guests use the gym too?"),
    ("How do I delete my account permanently?", "How do I permanently delete my account?"),
    ("When is the next software update planned?", "When is the next update of the software planned?"),
    ("What languages does the app support?", "Which languages does the app support?"),
    ("How do I reset the alarm code?", "How do I reset the code of the alarm?"),
    ("Is breakfast included in the room price?", "Is breakfast included in the price of the room?"),
    ("How long is the warranty?", "How long is the warranty period?"),
    ("Who approves travel expenses?", "Who approves my travel expenses?"),
    ("What should I do if I lose my key?", "What do I do if I lose my key?"),
    ("How do I print on both sides of the paper?", "How do I print on both sides of a sheet of paper?"),
    ("What happens if I miss an exam?", "If I miss an exam, what happens?"),
    ("Can I change my seat after the booking?", "Can I change my seat after booking?"),
    ("How warm is the pool?", "How warm is the water in the pool?"),
    ("Which bus goes to the campus?", "What bus goes to the campus?"),
]
LOOK_ALIKE = [
    ("Is the library open on Monday?", "Is the library open on Sunday?"),
    ("How do I install the app on a Mac?", "How do I install the app on Windows?"),
    ("What was the revenue in 2023?", "What was the revenue in 2024?"),
    ("What is the maximum speed of the lift?", "What is the minimum speed of the lift?"),
    ("How do I turn the alarm on?", "How do I turn the alarm off?"),
    ("How do I add a user to a group?", "How do I remove a user from a group?"),
    ("Can I pay with a credit card?", "Can I pay without a credit card?"),
    ("What should I do before the exam?", "What should I do after the exam?"),
    ("Is the museum open in winter?", "Is the museum not open in winter?"),
    ("How do I get from the airport to the station?", "How do I get from the station to the airport?"),
    ("Who is the head of sales?", "Who is the head of support?"),
    ("How many days of sick leave do I get?", "How many days of parental leave do I get?"),
    ("What is the first step of the setup?", "What is the last step of the setup?"),
    ("Where is the entrance for visitors?", "Where is the exit for visitors?"),
    ("When does the summer term begin?", "When does the summer term end?"),
    (
        "What time does the main library in the old town open on Monday?",
        "What time does the main library in the old town open on Friday?",
    ),
    (
        "How do I export all the contacts from the phone book to a file?",
        "How do I import all the contacts from the phone book to a file?",
    ),
    (
        "Which form do I need to renew a work permit in Spain for my staff?",
        "Which form do I need to renew a work permit in Italy for my staff?",
    ),
    (
        "How much does it cost to send a parcel of 5 kg to Norway?",
        "How much does it cost to send a parcel of 10 kg to Norway?",
    ),
    (
        "Is the ramp for wheelchairs at the north gate open at night?",
        "Is the ramp for wheelchairs at the south gate open at night?",
    ),
    ("How do I set up e-mail on Android?", "How do I set up e-mail on an iPhone?"),
    ("Who was the director in 1990?", "Who was the director in 1991?"),
    ("When do the spring holidays begin?", "When do the autumn holidays begin?"),
    ("How do I open an account?", "How do I close an account?"),
    ("What is the salary of a nurse?", "What is the salary of a doctor?"),
    ("How do I convert a PDF to Word?", "How do I convert Word to a PDF?"),
    ("Is the blue line faster than the red line?", "Is the red line faster than the blue line?"),
    ("What is the height of the tower?", "What is the age of the tower?"),
    ("How do I switch the heating on?", "How do I switch the heating off?"),
    ("May I smoke inside the building?", "May I smoke outside the building?"),
    (
        "Which vaccines do I need for a trip to Brazil with children?",
        "Which vaccines do I need for a trip to Kenya with children?",
    ),
    ("How do I install version 3?", "How do I install version 4?"),
    ("What is the price for adults?", "What is the price for children?"),
    ("How many rooms have a balcony?", "How many rooms have no balcony?"),
    ("Where do I hand in the form?", "Where do I get the form?"),
    (
        "How do I enable two-step login for all users in the admin panel?",
        "How do I disable two-step login for all users in the admin panel?",
    ),
    (
        "Who repairs the lift in the main building at the weekend?",
        "Who repairs the heating in the main building at the weekend?",
    ),
    (
        "What is the limit for a bank transfer in euros per day?",
        "What is the limit for a bank transfer in euros per month?",
    ),
    ("How do I download my payslip?", "How do I upload my payslip?"),
    ("Can I return an opened item?", "Can I return an unopened item?"),
]


def found(pairs: list[tuple[str, str]], *, same_answer: bool) -> list[tuple[str, str]]:
    """Which of these pairs come together in a sheet of all of them, each with an answer of its own, or two."""
    sheet = [
        Pair(text, f"{place} {side * (not same_answer)}", 2)
        for place, both in enumerate(pairs)
        for side, text in enumerate(both)
    ]
    groups = near_duplicates(sheet)
    return [both for place, both in enumerate(pairs) if [2 * place, 2 * place + 1] in groups]


@pytest.mark.parametrize(("same_answer", "recall"), [(True, 36 / 40), (False, 16 / 40)])
def test_of_natural_rewordings(same_answer: bool, recall: float) -> None:
    """Nine in ten where the answer is the same, four in ten where it is not; precision is 1 in both cases.

    The rules were made with these in sight: of the last 20, 14 were found before a rule was changed for one of them.

    RapidFuzz at 90 of 100 by `token_sort_ratio` finds 24 of the 40, and takes 17 of the 40 others for the same.
    """
    assert len(REWORDED) == len(LOOK_ALIKE) == 40
    assert len(found(REWORDED, same_answer=same_answer)) / len(REWORDED) >= recall
    assert found(LOOK_ALIKE, same_answer=same_answer) == []


def test_the_order_counts_between_from_and_to_and_than() -> None:
    assert together("Do the keys of the house fit?", "Do the house keys fit?", same_answer=True)
    assert not together(
        "Is the bus to town faster than the train?", "Is the train to town faster than the bus?", same_answer=True
    )
    assert not together(
        "How do I get from the pier to the inn?", "How do I get from the inn to the pier?", same_answer=True
    )


def test_a_word_more_is_nothing_where_the_answer_is_the_same_unless_it_decides() -> None:
    asked = "How long does the battery of the camera last{}?"
    assert together(asked.format(""), asked.format(" outdoors"), same_answer=True)
    assert not together(asked.format(""), asked.format(" outdoors"))
    for word in ("without", "Friday", "5"):
        assert not together(asked.format(""), asked.format(f" {word}"), same_answer=True)


def test_a_name_is_never_the_word_that_differs() -> None:
    asked = "Which papers do we need for opening a business bank account in {}?"
    assert not together(asked.format("Spain"), asked.format("Italy"), same_answer=True)
    assert together(asked.format("spring"), asked.format("town"), same_answer=True)


def test_an_answer_to_many_questions_tells_nothing_of_them() -> None:
    asked = [Pair(f"Where are {what}?", "Ask.", 2) for what in ("the keys of the house", "the house keys")]
    others = [Pair(f"Where is number {place}?", "Ask.", 2) for place in range(30)]
    assert near_duplicates(asked + others[:18]) == [[0, 1]]
    assert near_duplicates(asked + others) == []


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
    assert near_duplicates([Pair(question, "", 2) for question in asked]) == [[0, 2, 4], [3, 5]]


def test_a_sheet_of_paraphrases_has_none() -> None:
    pairs = find_pairs(HANDBOOK).pairs
    assert len(pairs) == 490
    assert near_duplicates(pairs) == []


@given(st.lists(st.text(alphabet="ab c?1é", max_size=12), max_size=12))
def test_every_place_is_in_one_group_at_most(questions: list[str]) -> None:
    places = [place for group in near_duplicates([Pair(question, "", 2) for question in questions]) for place in group]
    assert len(places) == len(set(places))
    assert all(0 <= place < len(questions) for place in places)


def test_groups_do_not_depend_on_the_hashes_of_the_process() -> None:
    draw = random.Random(3)
    words = ["".join(draw.choices("abcdef", k=6)) for _ in range(40)]
    texts = [(" ".join(draw.choices(words, k=draw.choice((3, 8, 24)))), draw.choice(words)) for _ in range(300)]
    pairs = [Pair(question, answer, 2) for question, answer in texts]
    code = (
        "from phinetune.sheet import Pair\nfrom phinetune.sheet.near_duplicates import near_duplicates\n"
        f"print(near_duplicates({pairs!r}))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert printed == {f"{near_duplicates(pairs)}\n"}
