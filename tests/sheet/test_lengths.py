"""Lengths that stand out are told, those of an even sheet are not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phinetune.sheet.findings import Pair
from phinetune.sheet.lengths import Bar, histogram, warn_of_lengths


def codes(answers: Sequence[str]) -> dict[str, tuple[int, ...]]:
    pairs = [Pair(f"Question {row}?", answer, row) for row, answer in enumerate(answers, start=2)]
    return {warning.code: warning.rows for warning in warn_of_lengths(pairs)}


EVEN = ["An answer of about sixty letters, as most of them are in here."] * 60


def test_an_even_sheet_gives_nothing() -> None:
    assert codes(EVEN) == {}
    assert codes(["Yes.", "No."] * 40) == {}
    assert codes([]) == {}


def test_very_short_answers_among_longer_ones() -> None:
    assert codes([*EVEN, "ok", "Yes"]) == {"short_answers": (62, 63)}


def test_very_long_answers() -> None:
    assert codes([*EVEN, "long " * 240]) == {"long_answers": (62,)}


def test_a_few_answers_that_hold_most_of_the_text() -> None:
    found = codes([*EVEN, *["long " * 1000] * 2])
    assert {62, 63} <= set(found["unbalanced_lengths"])


def test_a_full_cell_was_probably_cut() -> None:
    assert codes(["x" * 32_767])["full_cells"] == (2,)
    assert "full_cells" not in codes(["x" * 32_766])


def test_histogram() -> None:
    assert histogram([3, 5, 9, 40]) == (Bar(1, 4, 1), Bar(5, 8, 1), Bar(9, 16, 1), Bar(17, 32, 0), Bar(33, 64, 1))
    assert histogram([]) == ()


@given(st.lists(st.integers(1, 10**6), min_size=1))
def test_every_length_is_in_its_bar(lengths: list[int]) -> None:
    bars = histogram(lengths)
    assert [bar.count for bar in bars] == [sum(bar.low <= length <= bar.high for length in lengths) for bar in bars]
    assert sum(bar.count for bar in bars) == len(lengths)


@pytest.mark.parametrize("count", [1, 19])
def test_of_few_pairs_none_is_unusual(count: int) -> None:
    assert codes([*EVEN[:count], "ok"][:19]) == {}
