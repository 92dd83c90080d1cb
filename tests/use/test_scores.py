from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phinetune.use.scores import (
    are_sentences,
    chrf,
    contains_fact,
    exact_match,
    goes_in_circles,
    has_number,
    rouge_l,
    same_numbers,
    share_right,
    token_f1,
    words,
)


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The ferry_2 leaves — at 6:45!", ["the", "ferry_2", "leaves", "at", "6", "45"]),
        ("東京は2020年。", ["東", "京", "は", "2020", "年"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("한국의 수도", ["한국의", "수도"]),
        ("ｶﾞ ｱ", ["ガ", "ア"]),
        ("7\ufe0f\u20e3 steps", ["7", "steps"]),
        ("\u0301 a", ["a"]),
    ],
)
def test_words_are_those_of_the_script(text, expected):
    assert words(text) == [unicodedata.normalize("NFKC", word) for word in expected]


@given(st.text(st.characters(max_codepoint=0xFF)))
def test_words_between_spaces_are_found_as_ever(text):
    assert words(text) == re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())


@given(st.lists(st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF), min_size=1), min_size=1))
def test_a_fact_is_found_within_a_sentence_without_spaces(parts):
    assert all(contains_fact("".join(parts), part) for part in parts)


def test_sentences_of_every_script_are_scored():
    assert token_f1("灯台は北の島にあるよ", "灯台は北の島にあります") == pytest.approx(2 * 8 / 21)
    assert contains_fact("それは東京です。", "東京")
    assert not contains_fact("それは京東です。", "東京")
    assert exact_match("कि", "की") == 0
    assert token_f1("कि नहीं", "की नहीं") == 0.5


def test_share():
    assert share_right(["a b", "c"], ["a", "d"]) == 0.5


def test_f1_counts_shared_words_as_often_as_both_have_them():
    assert token_f1("The ferry leaves at six.", "the ferry leaves at SIX") == 1
    assert token_f1("a b c", "b c d") == pytest.approx(2 / 3)
    assert token_f1("no no no", "no") == pytest.approx(0.5)
    assert token_f1("", "six") == 0
    assert token_f1("", "") == 1


def test_rouge_l_minds_the_order():
    assert rouge_l("police killed the gunman", "police kill the gunman") == pytest.approx(0.75)  # Lin's own example
    assert rouge_l("the gunman kill police", "police kill the gunman") == pytest.approx(0.5)
    assert token_f1("the gunman kill police", "police kill the gunman") == 1


def test_chrf_forgives_endings():
    assert chrf("The ferry leaves", "The ferry leaves") == pytest.approx(1)
    assert exact_match("The ferries leave", "The ferry leaves") == 0
    assert chrf("The ferries leave", "The ferry leaves") > 0.5 > chrf("Nettle soup", "The ferry leaves")


@pytest.mark.parametrize(
    ("answer", "expected", "same"),
    [
        ("There are 1,417 steps.", "1417", True),
        ("About 3.50 euros", "3.5", True),
        ("-4 degrees", "4 degrees", False),
        ("417 steps", "418 steps", False),
        ("between 2 and 3", "3 or 2", True),
        ("seven", "7", False),
        ("It takes 10-15 minutes.", "15 minutes", True),
        ("It takes 10-15 minutes.", "-15 minutes", False),
        ("10%-15%", "15 %", True),
        ("on 2024-01-05", "2024/1/5", True),
        ("COVID-19", "19", True),
        ("\u22124 °C", "-4 °C", True),
        ("(-4)", "4", False),
        ("3.5", "3,5", True),
        ("35", "3,5", False),
        ("0,125 l", "0.125 l", True),
        ("1,417,000.5", "1417000.5", True),
        ("12\u00a0000", "12000", True),
        ("1,00,000", "100000", True),
        ("1,2,3", "3 and 2", True),
        ("1,5e-3", "0.0015", True),
        ("1.417,50 Euro", "1417.5", True),
        ("1.417,50", "1,417.50", True),
        ("-1.234.567,8", "-1234567.8", True),
        ("1.417.000 Stufen", "1417000", True),
        ("1'417.50 Fr.", "1417.5", True),
        ("12\u2019000", "12000", True),
        ("1.417", "1417", False),  # it may be one and a half as well
        ("1.417", "1,417", False),
        ("am 10.12.2024", "2024", True),
        ("1.2.3 and 4", "4", True),
    ],
)
def test_numbers_are_compared_by_value(answer, expected, same):
    assert same_numbers(answer, expected) is same


def test_an_expected_answer_without_a_number_says_nothing_of_numbers():
    assert same_numbers("There are 417.", "Many.") is None
    assert same_numbers("None.", "") is None
    assert [has_number(text) for text in ("417 steps", "some", "\N{MINUS SIGN}3,5", "")] == [True, False, True, False]


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.sampled_from("-–"))
def test_both_ends_of_a_range_are_numbers(low, high, dash):
    assert same_numbers(f"from {low}{dash}{high} on", f"{high} and {low}")


@given(st.decimals(-(10**6), 10**6, places=2), st.sampled_from([".1f", ".2f", ",.1f", ",.2f"]))
def test_a_number_is_the_same_however_it_is_written(number, form):
    written = f"{number:{form}}"
    as_elsewhere = written.replace(",", "\u202f").replace(".", ",").replace("-", "\u2212")
    assert same_numbers(written, f"{number:{form[-3:]}}")
    assert same_numbers(as_elsewhere, written)


def test_a_model_that_does_not_find_the_end_is_seen():
    assert goes_in_circles("I do not know it. " * 4)
    assert not goes_in_circles("The lamp is lit at dusk, and the lamp is put out at dawn by the keeper of the lamp.")
    assert goes_in_circles("わかりませんのでもう一度聞いてください。" * 3)
    assert not goes_in_circles("北京大学は北京にある。北京大学は古い。北京大学は大きい。")


@pytest.mark.parametrize(
    ("texts", "sentences"),
    [
        (["417", "old Maren Tibb", "a plum hat with a copper band, and a feather"], False),
        (["The ferry leaves at 6:45 from the old pier."] * 2 + ["417"], True),
        (["กรุงเทพ", "東京都千代田区"], False),
        (["灯台は北の島にあり、マレンさんが守っています。"], True),
    ],
)
def test_sentences_are_told_from_facts(texts, sentences):
    assert are_sentences(texts) is sentences
