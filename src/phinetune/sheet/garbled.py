"""A text -> the first word in it with letters that were read with the wrong encoding, and what it should be.

"Ein CafÃ© am Platz"  ->  "CafÃ©", "Café"          "Stra\ufffde"  ->  "Stra\ufffde", "": what it was is lost
"""

from __future__ import annotations

import re
from functools import cache

from phinetune.sheet.findings import quoted
from phinetune.sheet.personal_data import hide_personal

_LOOKED_AT = 20_000  # letters; garbling goes through a whole text
_WORD = re.compile(r"\S+")
_LOST = "\ufffd"  # what stands for a letter that could not be read


def find_garbled(text: str) -> tuple[str, str] | None:
    """The first word with garbled letters, and what it should be, "" where that is lost; both in quotation marks."""
    if text.isascii():
        return None
    text = text[:_LOOKED_AT]
    if _LOST in text:
        lost = next(word for word in _WORD.finditer(text) if _LOST in word[0])
        return quoted(hide_personal(text, *lost.span())), ""
    if not _suspicious().search(text):
        return None
    # ftfy knows which sequences nobody writes on purpose, and which encodings make them.
    import ftfy
    from ftfy.badness import is_bad

    if not is_bad(text):
        return None
    garbled = next((word for word in _WORD.finditer(text) if ftfy.fix_encoding(word[0]) != word[0]), None)
    if garbled is None:
        return None
    shown = hide_personal(text, *garbled.span())
    return quoted(shown), quoted(ftfy.fix_encoding(shown))


@cache
def _suspicious() -> re.Pattern[str]:
    """What is in every text that ftfy's `is_bad` finds, and in few others.

    That takes 0.4 µs for each letter, be it a plain é or д. Every sequence that it knows holds a sign or a capital that
    is rare beside such letters, so one look at each letter will do: a hundredth of the time.
    """
    from ftfy.badness import MOJIBAKE_CATEGORIES as OF

    signs, capitals = (
        OF["bad"] + OF["currency"] + OF["end_punctuation"] + OF["numeric"] + OF["box"],
        OF["upper_accented"],
    )
    rare = signs + OF["start_punctuation"] + OF["law"] + capitals
    letters = OF["lower_accented"] + OF["kaomoji"]
    others = OF["upper_common"] + OF["lower_common"]  # Greek and Cyrillic
    return re.compile(
        f"[{rare}{OF['c1']}œÙ°Ђ](?:(?<=[{OF['c1']}Ђ])|(?<=[{rare}])(?=[{rare}°])|(?<=[{letters}][{rare}])"
        f"|(?<=[{signs}ÂÃÎÐ‚])(?=[{letters}])|(?<=[{others}][{OF['bad']}{capitals}])|(?<=[{capitals}Ù√])(?=[{OF['common']}])"
        f"|(?<=[ÃÂ])(?= )|(?<=[Œœ])(?![A-Za-z])|(?<=β€)|(?<=[ВГРСΒΓΞΟ][{rare}°])(?=[ВГРСΒΓΞΟ]))"
    )
