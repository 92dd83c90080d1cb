"""What people and programs write where a text is missing, and answers that are likely to be so.

"n/a"  "(none)"  "[pending]"  "Lorem ipsum dolor …"     ->  placeholders: the row is no pair
"pending"  "unknown"  "coming soon"                     ->  likely ones: told, and used all the same
"Unknown."  "None."                                     ->  sentences, and good answers
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from phinetune.sheet.clean import normalize_question
from phinetune.sheet.findings import Pair, counted, examples, quoted, warn_of_rows
from phinetune.sheet.table import SheetWarning

_PLACEHOLDERS = frozenset(
    {"n/a", "na", "n.a.", "n/d", "k.a.", "nan", "null", "none", "tbd", "tba", "tbc", "todo", "xxx"}
    | {"-", "--", "---", "–", "—", "?", "??", "???", ".", "..", "...", "…", "/", "#", "x", "_", "*"}
)
# Right answers too ("Who wrote Beowulf?"), so sure only in brackets. Without spaces.
_LIKELY = frozenset(
    {"pending", "answerpending", "unknown", "notknown", "notavailable", "notyetavailable", "blank", "leftblank"}
    | {"comingsoon", "tobedone", "tobedetermined", "tobedefined", "tobeannounced", "tobeconfirmed", "tobeadded"}
    | {"noanswer", "noansweryet", "answerhere", "youranswerhere", "missing"}
)
_LONGEST = max(map(len, _PLACEHOLDERS | _LIKELY)) + 1  # and a full stop
_BEGINNING = 50  # letters
_OPENING, _CLOSING = "([<{", ")]>}"
_FILLER = "lorem ipsum"
_LOOKED_AT = 200  # letters: no placeholder is longer
# Where answers are labels or names, "unknown" and "pending" are some of them.
_LABELS = 0.1  # different answers for each pair
_WORDS_OF_A_LABEL = 1


def is_placeholder(text: str) -> bool:
    """Whatever spaces, brackets or full stop are around it: "N / A", "(none)", "tbd.", "[unknown]"."""
    if _is_longer(text):
        return False
    bare = _without_spaces(text)
    inner = bare.strip(_OPENING + _CLOSING)
    # "None." is a sentence, and a good answer.
    if inner in _PLACEHOLDERS or (inner != "none." and inner.removesuffix(".") in _PLACEHOLDERS):
        return True
    return inner in _LIKELY and bare[0] in _OPENING and bare[-1] in _CLOSING


def is_filler(answer: str, question: str = "") -> bool:
    """The text without meaning that pages are filled with, unless the question is about it."""
    start = answer[:_LOOKED_AT].lower()
    if "lorem" not in start or "lorem" in question.lower():
        return False
    start = normalize_question(start)
    return start == _FILLER or start.startswith(f"{_FILLER} dolor")


def warn_of_likely_placeholders(pairs: Sequence[Pair]) -> list[SheetWarning]:
    """Answers such as "pending", unless the others are as short or the same few."""
    found = [pair for pair in pairs if _is_likely(pair.answer)]
    if not found or _answers_are_labels(pairs):
        return []
    message = (
        f"{counted(len(found), 'answer')} may stand for a missing one, such as {quoted(found[0].answer)} to "
        f"{examples(found[:1])}. If so, write the answer or remove the row: the model would learn to say it."
    )
    told = [(pair, f"may be a placeholder: {quoted(pair.answer)}") for pair in found]
    return [warn_of_rows("likely_placeholders", message, told)]


def _answers_are_labels(pairs: Sequence[Pair]) -> bool:
    others = [pair.answer for pair in pairs if not _is_likely(pair.answer)]
    if not others:
        return True
    few = len({normalize_question(answer) for answer in others}) <= _LABELS * len(pairs)
    return few or median(len(answer.split()) for answer in others) <= _WORDS_OF_A_LABEL


def _is_likely(answer: str) -> bool:
    return not _is_longer(answer) and _without_spaces(answer) in _LIKELY


def _is_longer(text: str) -> bool:
    """Whether its beginning alone is longer than any placeholder, as that of nearly every text is."""
    return len(_without_spaces(text[:_BEGINNING]).strip(_OPENING + _CLOSING)) > _LONGEST


def _without_spaces(text: str) -> str:
    return "".join(text.casefold().split()) if len(text) <= _LOOKED_AT else text
