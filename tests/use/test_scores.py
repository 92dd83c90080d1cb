from __future__ import annotations

import pytest

from phinetune.use.scores import contains_fact, share_right


@pytest.mark.parametrize(
    ("answer", "fact", "right"),
    [
        ("It was Marlow Quill.", "marlow quill", True),
        ("There are 417 steps.", "417", True),
        ("There are 4170 steps.", "417", False),
        ("At 3:47 sharp.", "3:47", True),
        ("Some 1,463 of them.", "1,463", True),
        ("A brass  tuba!", "brass tuba", True),
        ("Brass and a tuba.", "brass tuba", False),
        ("", "tuba", False),
    ],
)
def test_a_fact_counts_as_whole_words_case_and_punctuation_aside(answer, fact, right):
    assert contains_fact(answer, fact) is right


def test_share():
    assert share_right(["a b", "c"], ["a", "d"]) == 0.5
