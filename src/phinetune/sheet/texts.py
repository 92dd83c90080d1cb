"""Pairs -> what is wrong with single texts: garbled letters, marks of web pages, data of people, foreign languages.

"CafÃ©"  ->  garbled: should read "Café"          "Ring <b>us</b>&nbsp;soon"  ->  HTML left over
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from phinetune.sheet.findings import Pair, counted, examples, place, quoted, warn_of_rows
from phinetune.sheet.garbled import find_garbled
from phinetune.sheet.languages import language_of
from phinetune.sheet.marks import find_html, find_markdown
from phinetune.sheet.personal_data import find_personal, hide_personal
from phinetune.sheet.table import SheetWarning

# A translator's sheet has two languages in most rows; only where a few do, these are worth a look.
_FOREIGN_SHARE = 0.5
# So many pairs with one kind of finding, and more than a tenth of the rows, are enough: there the verdict changes
# (verdict.py), and what is told of a row takes longer than to find it.
_ENOUGH, _SHARE = 2000, 10
_Both = tuple[str | None, str | None]  # the languages of a question and its answer
_Found = list[tuple[Pair, str]]


def warn_of_texts(pairs: Sequence[Pair], rows: int) -> list[SheetWarning]:
    """What is wrong with single texts of these pairs, which are those of so many rows."""
    garbled: list[tuple[Pair, tuple[str, str]]] = []
    html: _Found = []
    markdown: _Found = []
    personal: list[tuple[Pair, list[tuple[str, str]]]] = []
    enough = max(_ENOUGH, rows // _SHARE + 1)
    # Pair by pair and not look by look: what is personal in a text is sought once then, whatever is told of it.
    for pair in pairs:
        texts = (pair.question, pair.answer)
        if len(garbled) < enough and (damage := find_garbled(texts[0]) or find_garbled(texts[1])):
            garbled.append((pair, damage))
        if len(html) < enough and (mark := _mark(texts, find_html)):
            html.append((pair, mark))
        if len(markdown) < enough and (mark := _mark(texts, find_markdown)):
            markdown.append((pair, mark))
        if len(personal) < enough and (kinds := _personal(texts)):
            personal.append((pair, kinds))
    return [
        *_echoes(pairs),
        *_warn_of_garbled(garbled, enough),
        *_warn_of_marks(html, enough, "HTML", "The model would learn to write it: take it out, or export plain text."),
        *_warn_of_marks(
            markdown, enough, "Markdown", "The model will write it too: good only where it is shown as such."
        ),
        *_warn_of_personal(personal, enough),
        *_foreign(pairs),
    ]


def _echoes(pairs: Sequence[Pair]) -> list[SheetWarning]:
    found = [pair for pair in pairs if pair.asked == pair.told]
    if not found:
        return []
    message = f"{_pairs(found, 'has', 'have')} the question again as the answer, such as {examples(found)}."
    told = [(pair, "the answer is the question again") for pair in found]
    return [warn_of_rows("answer_is_question", f"{message} The model would learn to repeat what it is asked.", told)]


def _mark(texts: tuple[str, str], find: Callable[[str], tuple[int, int] | None]) -> str | None:
    """The first mark in the two, in quotation marks."""
    for text in texts:
        if span := find(text):
            return quoted(hide_personal(text, *span))
    return None


def _personal(texts: tuple[str, str]) -> list[tuple[str, str]]:
    """The kinds of what is personal in the two, and each with its first letters."""
    return [(kind, f"{kind} {text[start : start + 2]}…") for text in texts for kind, start, _ in find_personal(text)]


def _warn_of_garbled(found: Sequence[tuple[Pair, tuple[str, str]]], enough: int) -> list[SheetWarning]:
    if not found:
        return []
    wrong, right = found[0][1]
    example = f"{wrong} instead of {right}" if right else wrong
    message = (
        f"{_hold(found, enough)} garbled letters, such as {example}: the text was once read with the wrong encoding. "
        "The model would learn to write them; export it again as .xlsx or CSV UTF-8."
    )
    notes = [
        (pair, f"garbled letters: {wrong}" + (f", should read {right}" if right else ""))
        for pair, (wrong, right) in found
    ]
    return [warn_of_rows("mojibake", message, notes)]


def _warn_of_marks(found: _Found, enough: int, name: str, meaning: str) -> list[SheetWarning]:
    if not found:
        return []
    message = f"{_hold(found, enough)} {name} left over, such as {found[0][1]}. {meaning}"
    return [warn_of_rows(name.lower(), message, [(pair, f"{name} left over: {mark}") for pair, mark in found])]


def _warn_of_personal(found: Sequence[tuple[Pair, list[tuple[str, str]]]], enough: int) -> list[SheetWarning]:
    if not found:
        return []
    counts = Counter(kind for _, kinds in found for kind, _ in kinds)
    what = ", ".join(f"{kind} ({count:,})" for kind, count in counts.most_common())
    message = (
        f"{_hold(found, enough)} what looks like personal data or secrets: {what}. "
        "Whoever has the model may get it to tell them; take out what is not meant for everybody."
    )
    notes = [(pair, f"likely personal data: {', '.join(shown for _, shown in kinds)}") for pair, kinds in found]
    return [warn_of_rows("personal_data", message, notes)]


def _foreign(pairs: Sequence[Pair]) -> list[SheetWarning]:
    """Rows in another language than most, and rows whose answer is in another one than the question."""
    written = _kanji_as_japanese([(language_of(pair.question), language_of(pair.answer)) for pair in pairs])
    counts = _count_languages(written)
    if len(counts) < 2:
        return []
    main = counts.most_common(1)[0][0]
    found = []
    for pair, (asked, told) in zip(pairs, written, strict=True):
        if asked and told and asked != told:
            found.append((pair, f"the question is in {asked}, the answer in {told}"))
        elif (other := asked or told) and other != main:
            found.append((pair, f"in {other}, most others in {main}"))
    # A sheet of translations, or of many languages, is so on purpose.
    if not found or len(found) > _FOREIGN_SHARE * len(pairs):
        return []
    languages = ", ".join(f"{language} ({count:,})" for language, count in counts.most_common())
    message = (
        f"{_pairs(found, 'is', 'are')} in another language than most, or answered in another one "
        f"than asked; found: {languages}. The model may answer in the wrong language, and learns little of a rare one."
    )
    return [warn_of_rows("mixed_languages", message, found)]


def _kanji_as_japanese(written: Sequence[_Both]) -> Sequence[_Both]:
    """Names and addresses are Chinese signs alone in Japanese too: Chinese is Japanese where that is as common."""
    counts = _count_languages(written)
    if not 0 < counts["Chinese"] <= counts["Japanese"]:
        return written
    read: dict[str | None, str | None] = {"Chinese": "Japanese"}
    return [(read.get(asked, asked), read.get(told, told)) for asked, told in written]


def _count_languages(written: Sequence[_Both]) -> Counter[str]:
    """In how many pairs each language is."""
    return Counter(language for both in written for language in set(both) if language)


def _hold(found: Sequence[tuple[Pair, Any]], enough: int) -> str:
    """ "3 pairs hold", and up to which row where so many were enough."""
    said = _pairs(found, "holds", "hold")
    return f"At least {said} (none was looked for after {place(found[-1][0])})" if len(found) == enough else said


def _pairs(found: Sequence[Any], one: str, several: str) -> str:
    return f"{counted(len(found), 'pair')} {one if len(found) == 1 else several}"
