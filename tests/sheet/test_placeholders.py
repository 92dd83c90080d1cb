"""Placeholders are told from answers, and likely ones only where answers are sentences."""

from __future__ import annotations

import pytest

from phinetune.sheet.findings import Pair
from phinetune.sheet.placeholders import is_filler, is_placeholder, warn_of_likely_placeholders


@pytest.mark.parametrize(
    "text",
    [
        *("n/a", "N/A", "-", "–", "?", "TBD", "nan", "NaN", "None", "null", "...", "To do"),
        *("N/A.", "tbd.", "(none)", "N / A", "[TBD]", "k. A.", "<null>", "- -"),
        *("(blank)", "[Unknown]", "<pending>", "(to be determined)", "{ coming soon }"),
    ],
)
def test_placeholders(text: str) -> None:
    assert is_placeholder(text)


@pytest.mark.parametrize(
    "text",
    ["No", "42", "A - B", "None.", "()", "(a)", "unknown", "Pending", "blank", "(unknown) artist", "coming soon"],
)
def test_no_placeholders(text: str) -> None:
    assert not is_placeholder(text)


def test_filler_text() -> None:
    assert is_filler("Lorem ipsum dolor sit amet, consectetur adipiscing elit.", "What are the fees?")
    assert is_filler("LOREM IPSUM …", "What are the fees?")
    assert not is_filler("Lorem ipsum is text without a meaning.", "What fills the page?")
    assert not is_filler("Lorem ipsum dolor sit amet", "How does Lorem Ipsum begin?")


def rows(answers: list[str]) -> tuple[int, ...]:
    """The rows, from 2 on, whose answer is told to be a likely placeholder."""
    pairs = [Pair(f"What is number {row}?", answer, row) for row, answer in enumerate(answers, start=2)]
    return tuple(row for warning in warn_of_likely_placeholders(pairs) for row in warning.rows)


SENTENCES = [f"It is the number {place}." for place in range(10)]


@pytest.mark.parametrize("answer", ["pending", "Not available", "UNKNOWN", "coming soon", "blank", "To be announced"])
def test_likely_placeholders_among_sentences(answer: str) -> None:
    assert rows([*SENTENCES, answer]) == (12,)


@pytest.mark.parametrize("answer", ["Unknown.", "Coming soon!", "It is pending.", "unknown author", "The blank one"])
def test_sentences_and_what_holds_more_are_answers(answer: str) -> None:
    assert rows([*SENTENCES, answer]) == ()


def test_labels_and_names_are_answers() -> None:
    assert rows(["paid", "pending", "refused", "pending"]) == ()
    assert rows(["Homer", "Unknown", "Virgil"]) == ()
    assert rows(["in the shop", "not available"] * 20) == ()
