"""A text -> what in it looks like personal data or a secret, and the text with it hidden.

"Write to jane@firm.org or +44 20 7946 0958"  ->  e-mail address, phone number
                                              ->  "Write to ja… or +4…"

Patterns alone find these, so each is kept to what is seldom anything else: a card number has its check digit right, a
date is no phone number, and what is called a password has a digit in it. A name or an address of a street is not found,
nor is a password that is a plain word.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

_SHOWN = 2  # letters of what is hidden: enough to find it in its row
_Spans = Iterator[tuple[int, int]]


class Personal(NamedTuple):
    kind: str
    start: int
    end: int


_LONGEST_NAME = 64  # letters before the "@"
_EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){0,8}\.[a-zA-Z]{2,24}\b")
# Reserved for examples (RFC 2606); nobody reads there.
_EXAMPLE_MAIL = re.compile(r"@(?:[\w-]+\.)*(?:example\.(?:com|org|net)|[\w-]+\.(?:example|test|invalid))$", re.I)
_PHONE = re.compile(
    r"(?<![\w.,/+-])(?:"
    r"(?:\+|00)[1-9](?:[ ./()-]{0,2}\d){7,14}"  # +44 20 7946 0958
    r"|(?:\+?1[ .-])?\(\d{3}\) ?\d{3}[ .-]\d{4}|(?:\+?1[ .-])?\d{3}([ .-])\d{3}\1\d{4}"  # (415) 555-2671
    r"|\(?0[1-9]\d{1,4}\)?[ /-]\d{3,8}(?:[ -]\d{2,6}){0,3}"  # 030 12345678
    r"|0[1-9](?:([ .]?)\d\d)(?:\2\d\d){3}\d{0,2}"  # 06 12 34 56 78
    r")(?![\w/]|[.,-]\d)"
)
_CARD = re.compile(r"(?<![\w.+-])(?:[3-6]\d{3}([ -]?)\d{4}\1\d{4}\1\d{4}|3[47]\d{2}([ -]?)\d{6}\2\d{5})(?![\w-]|\.\d)")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_SOCIAL_SECURITY = re.compile(r"(?<![\w-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")
_KEY = re.compile(
    r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"
    r"|\b(?P<any>(?:sk|pk|rk)[-_](?:[a-z]+[-_])?[A-Za-z0-9_-]{20,})"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[0-9A-Za-z_-]{35}"
    r"|\bgh[pousr]_[A-Za-z0-9]{36,}|\bgithub_pat_\w{22,}|\bglpat-[\w-]{20,}|\bhf_[A-Za-z]{30,}|\bxox[abprs]-[\w-]{10,}"
    r"|(?<![\w-])eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"
)
# What is set beside such a name; a value that begins like "$TOKEN", "<token>" or "{token}" stands for one, and one with
# a bracket after it is worked out by a program.
_NAMED = re.compile(
    r"(?:(?P<password>pass(?:word|wd|code|phrase|wort)|\bpwd|kennwort|wachtwoord|mot de passe|contraseña|\bsenha)"
    r"|secret|token|(?:api|access|account|private|auth)[ _-]?key)"
    r"[\"'*_`]{0,3}[ \t]{0,3}(?::=|[:=])[ \t\"'*_`]{0,6}"
    r"(?P<value>(?![$%<{(\[])[^\s\"'`<>{}()\[\],;]{6,200}+)(?![(\[{<])"
    r"|\bbearer\s{1,3}(?P<bearer>[\w.~+/=-]{16,2000}+)",
    re.IGNORECASE,
)
_NAMES = ("pass", "pwd", "wort", "wachtwoord", "contraseña", "senha", "secret", "token", "key", "bearer")
_TOKEN = re.compile(r"(?=.*[A-Za-z])(?=\D*\d\D*\d|.{20})(?=.*\d)[\w.~+/=-]{12,}")
# "SHA256", "base64", "10-character", "password2", "your_password1", "form.password1", a link: no secret.
_NO_SECRET = re.compile(
    r"(?:sha|md|base|aes|rsa|utf|oauth|argon|pbkdf|u?int|char|varchar)-?\d|\d{1,3}-[a-z]+$|(?:pass|pwd|secret|token)\w*$"
    r"|.*(?:your|xxx|://)|[a-z_]+\.[a-z_.]*\d?$|www\.",
    re.IGNORECASE,
)
# Passed over at a glance: a key is a long word, and begins in a way of its own.
_LONG_WORD, _LONG = re.compile(r"[\w-]{15}"), 15  # letters
_KEY_BEGINS = "-----BEGIN"
_KEY_SIGNS = ("-", "_", "AKIA", "ASIA", "AIza", "eyJ")  # one of them is in every key
_FEWEST_DIGITS = 8
_DIGITS = re.compile(r"\d(?:[ ()./-]{0,3}\d){7}")
# Of UTF-8 the digits of ASCII, and the bytes that digits of other scripts begin with.
_DIGIT_LEADS = bytes.fromhex("d9 db df e0 e1 ea ef f0")
_NO_DIGITS = bytes(set(range(256)) - {*b"0123456789", *_DIGIT_LEADS})


def find_personal(text: str) -> list[Personal]:
    """What looks like an e-mail address, phone, card, account or social security number, password or key, in order."""
    return list(_find(text))


# A text is looked at again for each thing that is told of it; texts come one after the other.
@lru_cache(maxsize=16)
def _find(text: str) -> tuple[Personal, ...]:
    found: list[Personal] = []
    for kind, spans in _looked_for(text):
        free = [span for span in spans if _is_free(span, found)]
        found = sorted([*found, *(Personal(kind, *span) for span in free)], key=_start)
    return tuple(found)


def _looked_for(text: str) -> Iterator[tuple[str, _Spans]]:
    """What the text may hold, the surest first; nearly every text is passed over by a look at its letters."""
    if any(map(text.__contains__, _KEY_SIGNS)) and (_KEY_BEGINS in text or _has_long_word(text)):
        yield "secret key", _keys(text)
    lower = text.lower()
    # What is named is set by one of these signs, or follows "bearer".
    if (":" in text or "=" in text or "bearer" in lower) and any(map(lower.__contains__, _NAMES)):
        named = list(_NAMED.finditer(text))
        yield "password", _passwords(named)
        yield "secret key", _tokens(named)
    if "@" in text:
        yield "e-mail address", _emails(text)
    if _may_have_digits(text) and _DIGITS.search(text):
        yield "bank account number", _accounts(text)
        yield "card number", _cards(text)
        yield "social security number", _social_security(text)
        yield "phone number", _phones(text)


def _has_long_word(text: str) -> bool:
    # Cutting at the spaces costs a third of the search.
    return max(map(len, text.split()), default=0) >= _LONG and _LONG_WORD.search(text) is not None


def _may_have_digits(text: str) -> bool:
    digits = text.encode("utf-8", "replace").translate(None, _NO_DIGITS)
    return len(digits) >= _FEWEST_DIGITS or not digits.isascii()


def hide_personal(text: str, start: int = 0, end: int | None = None) -> str:
    """This part of the text, with all but the first two letters of each of these left out.

    What a part holds is told by the whole: nothing in "hunter2" says what it is.
    """
    end = len(text) if end is None else end
    shown, place = "", start
    for _, first, last in _find(text):
        if first < end and last > start:
            shown += f"{text[place : min(first + _SHOWN, end)]}…"
            place = last
    return shown + text[place:end]


def _is_free(span: tuple[int, int], found: Sequence[Personal]) -> bool:
    """Whether none of `found`, in their order, overlaps the span: only the last that begins before its end could."""
    place = bisect_left(found, span[1], key=_start)
    return place == 0 or found[place - 1].end <= span[0]


def _start(personal: Personal) -> int:
    return personal.start


def _keys(text: str) -> _Spans:
    for match in _KEY.finditer(text):
        if match[0].startswith("-----"):
            yield match.start(), len(text)
        # Not a-word-with-many-hyphens.
        elif match["any"] is None or sum(map(str.isdigit, match[0])) > 1:
            yield match.span()


def _passwords(named: Sequence[re.Match[str]]) -> _Spans:
    for match in named:
        if match["password"] and any(map(str.isdigit, match["value"])) and not _NO_SECRET.match(match["value"]):
            yield match.start("value"), match.start("value") + len(match["value"].rstrip(".:*_"))


def _tokens(named: Sequence[re.Match[str]]) -> _Spans:
    for match in named:
        name = "bearer" if match["bearer"] else "value"
        value = match[name].rstrip(".:*_")
        if not match["password"] and _TOKEN.fullmatch(value) and not _NO_SECRET.match(value):
            yield match.start(name), match.start(name) + len(value)


def _emails(text: str) -> _Spans:
    place = 0
    # From sign to sign: looking at every letter takes five times as long.
    while (sign := text.find("@", place)) >= 0 and (match := _EMAIL.search(text, max(place, sign - _LONGEST_NAME))):
        place = match.end()
        if not _EXAMPLE_MAIL.search(match[0]):
            yield match.span()


def _cards(text: str) -> _Spans:
    return (match.span() for match in _CARD.finditer(text) if _has_check_digit(match[0]))


def _accounts(text: str) -> _Spans:
    return (match.span() for match in _IBAN.finditer(text) if _is_account(match[0]))


def _social_security(text: str) -> _Spans:
    return (match.span() for match in _SOCIAL_SECURITY.finditer(text))


def _phones(text: str) -> _Spans:
    for match in _PHONE.finditer(text):
        digits = "".join(filter(str.isdigit, match[0]))
        # Digits in their order ("0123456789") are an alphabet, not a number.
        if 8 <= len(digits) <= 16 and digits not in "01234567890123456789":
            yield match.span()


def _has_check_digit(number: str) -> bool:
    """Luhn's rule (ISO/IEC 7812-1), which one in ten numbers obeys by chance, and no single digit throughout."""
    digits = [int(letter) for letter in number if letter.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return len(set(digits)) > 1 and (sum(doubled) + sum(digits[-1::-2])) % 10 == 0


def _is_account(text: str) -> bool:
    """The remainder that every IBAN has (ISO 13616-1)."""
    letters = text.replace(" ", "")
    return int("".join(str(int(letter, 36)) for letter in letters[4:] + letters[:4])) % 97 == 1
