"""The text of a cell, freed from what spreadsheets and web pages leave around it.

"\u200b What\xa0is this?_x000D_\n"  ->  "What is this?"
"""

from __future__ import annotations

import re
import unicodedata

_INVISIBLE = "\u200b\u2060\ufeff"
# These shape letters and emoji inside a text (Persian, Hindi, families); only at the ends they mean nothing.
_JOINERS_AND_MARKS = "\u200c\u200d\u200e\u200f"
_CONTROL = "".join(chr(code) for code in range(32) if chr(code) not in "\t\n\r")
_WHITESPACE = "".join(chr(code) for code in range(0x3001) if chr(code).isspace())
_ENDS = _WHITESPACE + _JOINERS_AND_MARKS

_TRANSLATION = {
    **dict.fromkeys(map(ord, _INVISIBLE + _CONTROL)),
    **dict.fromkeys(map(ord, "\xa0\u202f"), " "),
}
_LINE_END = re.compile("\r\n?|\u2028|\u2029|\x85")
_CARRIAGE_RETURN = "_x000D_"  # as Excel writes it
# Looking for these takes a sixth of the time of replacing them, and most texts have none.
_TO_REPLACE = re.compile(f"[{re.escape(_INVISIBLE + _CONTROL)}\xa0\u202f\r\u2028\u2029\x85]")

_APOSTROPHES = "'’ʼ`´"
# C# is not C, 5 % is not 5.
_MEANINGFUL = "#%&@"
# A letter may become 18 (\ufdfa), and every text is compared many times: what comes after these counts as it stands.
_COMPARED = 20_000


def clean(text: str) -> str:
    """Without surrounding space, invisible characters and carriage returns; inner line breaks stay. Idempotent."""
    if text.isascii() and text.isprintable() and "_x000" not in text:
        return text.strip()
    if not _TO_REPLACE.search(text) and _CARRIAGE_RETURN not in text:
        return text.strip(_ENDS)
    visible = text.translate(_TRANSLATION).replace(_CARRIAGE_RETURN, "\r")
    return _LINE_END.sub("\n", visible).strip(_ENDS)


def normalize_question(text: str) -> str:
    """What makes two questions the same: letters and digits, whatever their case, width, spacing and punctuation."""
    if len(text) > _COMPARED:
        return normalize_question(text[:_COMPARED]) + text[_COMPARED:]
    text = clean(text)
    if text.isascii():
        folded = text.lower()
        bare = folded.encode().translate(_ASCII_SIGNS, _ASCII_LEFT_OUT).decode()
    else:
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        # Signs are few: replacing them alone takes a third of the time of translating every letter.
        bare = _SIGN.sub(_without_sign, folded.replace("_", " ").replace("ʼ", ""))
    return " ".join(bare.split()) or folded


def _without_sign(match: re.Match[str]) -> str:
    return _SIGNS[match[0]]


# Every sign that is no letter, digit or space; "_" and "ʼ" count as letters there.
_SIGN = re.compile(r"[^\w\s]")


class _SignTable(dict[str, str]):
    """What stands for a sign where questions are compared, worked out sign by sign."""

    def __missing__(self, sign: str) -> str:
        category = unicodedata.category(sign)
        replacement = sign
        if sign in _APOSTROPHES or category == "Cf":
            replacement = ""
        elif category[0] in "PZ" and sign not in _MEANINGFUL:
            replacement = " "
        self[sign] = replacement
        return replacement


_SIGNS = _SignTable()
_ASCII = [chr(code) for code in range(128)]
_ASCII_LEFT_OUT = "".join(sign for sign in _ASCII if not _SIGNS[sign]).encode()
_ASCII_SIGNS = bytes(ord(_SIGNS[sign] or sign) for sign in _ASCII) + bytes(128)
