"""Pairs -> what is wrong with single texts: garbled letters, marks of web pages, data of people, foreign languages.

"CafÃ©"  ->  garbled: should read "Café"          "Ring <b>us</b>&nbsp;soon"  ->  HTML left over
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from phinetune.sheet.findings import Pair, counted, examples, quoted, warn_of_rows
from phinetune.sheet.languages import language_of
from phinetune.sheet.marks import find_html, find_markdown
from phinetune.sheet.personal_data import find_personal, hide_personal
from phinetune.sheet.table import SheetWarning

_LOOKED_AT = 20_000  # letters; garbling goes through a whole text
_WORD = re.compile(r"\S+")
_LOST = "\ufffd"  # what stands for a letter that could not be read
# A translator's sheet has two languages in most rows; only where a few do, these are worth a look.
_FOREIGN_SHARE = 0.5
_Both = tuple[str | None, str | None]  # the languages of a question and its answer


def warn_of_texts(pairs: Sequence[Pair]) -> list[SheetWarning]:
    """What is wrong with single texts of these pairs."""
    return [
        *_echoes(pairs),
        *_garbled(pairs),
        *_marks(pairs, "HTML", find_html, "The model would learn to write it: take it out, or export plain text."),
        *_marks(pairs, "Markdown", find_markdown, "The model will write it too: good only where it is shown as such."),
        *_personal(pairs),
        *_foreign(pairs),
    ]


def _echoes(pairs: Sequence[Pair]) -> list[SheetWarning]:
    found = [pair for pair in pairs if pair.asked == pair.told]
    if not found:
        return []
    message = f"{_pairs(found, 'has', 'have')} the question again as the answer, such as {examples(found)}."
    told = [(pair, "the answer is the question again") for pair in found]
    return [warn_of_rows("answer_is_question", f"{message} The model would learn to repeat what it is asked.", told)]


def _garbled(pairs: Sequence[Pair]) -> list[SheetWarning]:
    found = []
    example = ""
    for pair in pairs:
        for text in (pair.question, pair.answer):
            if damage := _damage(text):
                wrong, right = damage
                found.append((pair, f"garbled letters: {wrong}" + (f", should read {right}" if right else "")))
                example = example or (f"{wrong} instead of {right}" if right else wrong)
                break
    if not found:
        return []
    message = (
        f"{_pairs([pair for pair, _ in found], 'holds', 'hold')} garbled letters, such as {example}: the text was once "
        "read with the wrong encoding. The model would learn to write them; export it again as .xlsx or CSV UTF-8."
    )
    return [warn_of_rows("mojibake", message, found)]


def _damage(text: str) -> tuple[str, str] | None:
    """The first word with garbled letters, and what it should be, "" where that is lost."""
    if text.isascii():
        return None
    text = text[:_LOOKED_AT]
    if _LOST in text:
        lost = next(word for word in _WORD.finditer(text) if _LOST in word[0])
        return quoted(hide_personal(text, *lost.span())), ""
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


def _marks(
    pairs: Sequence[Pair], name: str, find: Callable[[str], tuple[int, int] | None], meaning: str
) -> list[SheetWarning]:
    found = []
    for pair in pairs:
        for text in (pair.question, pair.answer):
            if span := find(text):
                found.append((pair, f"{name} left over: {quoted(hide_personal(text, *span))}"))
                break
    if not found:
        return []
    example = found[0][1].partition(": ")[2]
    message = f"{_pairs([pair for pair, _ in found], 'holds', 'hold')} {name} left over, such as {example}. {meaning}"
    return [warn_of_rows(name.lower(), message, found)]


def _personal(pairs: Sequence[Pair]) -> list[SheetWarning]:
    found = []
    kinds: Counter[str] = Counter()
    for pair in pairs:
        here = [
            (kind, f"{kind} {text[start : start + 2]}…")
            for text in (pair.question, pair.answer)
            for kind, start, _ in find_personal(text)
        ]
        if here:
            found.append((pair, f"likely personal data: {', '.join(shown for _, shown in here)}"))
            kinds.update(kind for kind, _ in here)
    if not found:
        return []
    what = ", ".join(f"{kind} ({count:,})" for kind, count in kinds.most_common())
    message = (
        f"{_pairs([pair for pair, _ in found], 'holds', 'hold')} what looks like personal data or secrets: {what}. "
        "Whoever has the model may get it to tell them; take out what is not meant for everybody."
    )
    return [warn_of_rows("personal_data", message, found)]


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
        f"{_pairs([pair for pair, _ in found], 'is', 'are')} in another language than most, or answered in another one "
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


def _pairs(found: Sequence[Pair], one: str, several: str) -> str:
    return f"{counted(len(found), 'pair')} {one if len(found) == 1 else several}"
