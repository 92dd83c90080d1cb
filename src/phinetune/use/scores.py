"""How good an answer is, judged by its text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence


def contains_fact(answer: str, fact: str) -> bool:
    """Whether the fact stands in the answer as whole words; case, punctuation and spacing aside."""
    return f" {_words(fact)} " in f" {_words(answer)} "


def share_right(answers: Sequence[str], facts: Sequence[str]) -> float:
    """Share of the answers that contain their fact, 0 to 1."""
    return sum(map(contains_fact, answers, facts)) / len(facts)


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))
