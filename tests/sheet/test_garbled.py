"""Texts that were read with the wrong encoding, and that nothing is passed over which ftfy would find."""

from __future__ import annotations

import random
import re
from itertools import product

import pytest
from ftfy.badness import MOJIBAKE_CATEGORIES, is_bad

from phinetune.sheet.garbled import _suspicious, find_garbled

LETTERS = "ВГРСвЂўΒΓΞΟβ€āÂÃÎÐØÙœŒ×√≈‚Äâóàä aZ1.,字"
KNOWN = sorted(
    {sign for signs in MOJIBAKE_CATEGORIES.values() for sign in map(chr, range(0x2600)) if re.match(f"[{signs}]", sign)}
    | set(LETTERS)
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Ein CafÃ© am Platz", ('"CafÃ©"', '"Café"')),
        ("Die Stra\ufffde", ('"Stra\ufffde"', "")),
        ("Он сказал: «Привет», и ушёл.", None),
        ("L’élève dit « Ça va », cœur à cœur.", None),
        ("plain", None),
    ],
)
def test_the_first_garbled_word_is_found_with_what_it_should_be(text, found):
    assert find_garbled(text) == found


def test_what_is_passed_over_at_a_glance_is_nothing_that_ftfy_finds():
    suspicious = _suspicious().search
    draw = random.Random(0)
    texts = [one + other for one, other in product(KNOWN, KNOWN)]
    texts += ["".join(draw.choices(LETTERS if draw.random() < 0.6 else KNOWN, k=5)) for _ in range(50_000)]
    bad = list(filter(is_bad, texts))
    assert len(bad) > 50_000
    assert not [text for text in bad if not suspicious(text)]


@pytest.mark.parametrize(
    "text", ["L’élève déjà à l’école où ça gêne", "Где находится ключ от сарая?", "鍵はどこですか", "Zażółć gęślą"]
)
def test_plain_texts_of_other_languages_are_passed_over_at_a_glance(text):
    assert not _suspicious().search(text)
