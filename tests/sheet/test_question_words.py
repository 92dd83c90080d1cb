"""Words of meaning, words that keep their order, and names."""

from __future__ import annotations

from phinetune.sheet.question_words import DECISIVE, in_any_order, may_differ, meaning, names


def test_light_words_go_and_equal_ones_become_one() -> None:
    assert meaning("how do i reset my password please") == ["how", "reset", "password"]
    assert meaning("whom do i ask for info") == ["who", "ask", "information"]
    assert meaning("what are you") == ["what", "are", "you"]


def test_words_are_sorted_where_their_order_says_nothing() -> None:
    assert in_any_order("change each delivery address", ("change", "each", "delivery", "address")) == (
        "address",
        "change",
        "delivery",
    )
    directed = ("drive", "from", "york", "leeds")
    assert in_any_order("drive from york to leeds", directed) == directed


def test_names_begin_large_within_a_sentence() -> None:
    asked = ["Is it open on Monday, please?", "Good day. Where does the bus to Bad-Nauheim stop?"]
    assert names(asked) == {"monday", "bad", "nauheim"}


def test_where_most_words_are_large_there_are_no_names() -> None:
    assert names(["How Do I Reset My Password?"]) == set()


def test_numbers_and_decisive_words_may_not_differ() -> None:
    assert may_differ("delivery", DECISIVE)
    assert not may_differ("without", DECISIVE)
    assert not may_differ("2024", DECISIVE)
