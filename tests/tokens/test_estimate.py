"""The estimate is near what a tokenizer counts, and grows with the text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phinetune.tokens.estimate import estimate_tokens


@pytest.mark.parametrize(
    ("text", "counted"),  # by Phi-2's tokenizer
    [
        ("What is a quasar?", 6),
        ("Wo ist der Schlüssel für den Schuppen? Über der Tür hängen größere Schlüssel.", 33),
        ("Где находится ключ от сарая?", 32),
        ("鍵はどこですか。物置の中です。", 21),
    ],
)
def test_is_near_the_count(text: str, counted: int) -> None:
    assert 0.6 * counted <= estimate_tokens(text) <= 1.6 * counted


@given(st.text(), st.text())
def test_more_text_is_never_less(one: str, other: str) -> None:
    assert 1 <= estimate_tokens(one) <= estimate_tokens(f"{one} {other}")
