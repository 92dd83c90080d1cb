"""A language is named where it is plain, and none where it is not."""

from __future__ import annotations

import pytest

from phinetune.sheet.languages import language_of


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("English", "Where is the key to the shed?"),
        ("German", "Wo ist der Schlüssel für den Schuppen?"),
        ("French", "Où est la clé de la cabane, et qui peut être dans le jardin ?"),
        ("Spanish", "¿Dónde está la llave y cómo puedo usar el armario?"),
        ("Portuguese", "Onde está a chave do armário? Você não sabe o que é isso."),
        ("Dutch", "Wat is het adres van de winkel en hoe kan ik bij jullie komen?"),
        ("Japanese", "鍵はどこですか"),
        ("Chinese", "钥匙在哪里"),
        ("Korean", "열쇠는 어디에 있습니까"),
        ("a language in Cyrillic letters", "Где находится ключ?"),
    ],
)
def test_plain(language: str, text: str) -> None:
    assert language_of(text) == language


@pytest.mark.parametrize(
    "text",
    [
        "",
        "OK",
        "42",
        "Los Angeles, El Paso",
        "Los Angeles and El Paso",
        "def f(el, y):\n    return y if el == y else el",
        "α, β and γ",
        "Die Hard",
    ],
)
def test_not_plain(text: str) -> None:
    assert language_of(text) is None
