"""The words of questions -> those that make a question this one, those that may never differ, and those that are names.

"how do i reset my password"              ->  how, reset, password
"Is it open on Monday?", "Who is Ada?"    ->  names: monday, ada
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from itertools import pairwise

from phinetune.sheet.clean import normalize_question

# Words that may come, go or change without a question becoming another one. "Not", "from" and "who" are no such words,
# and single letters seldom are: vitamin D, size S.
_LIGHT_WORDS = """
    a an the this that these those my your our i you we me us please pls hi hello so just
    do does did can could will would is are be was were it its of for in on at there to
    der die das den dem des ein eine einen einem einer bitte ich du sie wir man mein meine ist sind zu
    le la les un une des de du il vous je on est sont y
    el los las una unos unas lo se es son por favor mi tu su
    os as um uma uns umas da dos das é são i gli uno è sono di per het een zijn
"""
_LIGHT = frozenset(_LIGHT_WORDS.split())
# These too where the answers are equal: "per year" is "each year" then, and "any discount" is "a discount".
_LIGHT_WITH_SAME_ANSWER_WORDS = """
    each every per any some currently now exactly usually normally actually still also too into onto
    should must pc computer
"""
_LIGHT_WITH_SAME_ANSWER = frozenset(_LIGHT_WITH_SAME_ANSWER_WORDS.split())
_SAME_WORDS = {
    **{f"{word}s": word for word in ("what", "who", "where", "when", "how", "why")},
    **dict.fromkeys(
        ("dont", "doesnt", "didnt", "cant", "cannot", "couldnt", "isnt", "arent", "wont", "wouldnt"), "not"
    ),
    **dict.fromkeys(("im", "ive", "id", "youre", "theres", "thats"), ""),
    **{"whom": "who", "which": "what", "max": "maximum", "min": "minimum", "info": "information"},
}
_KEPT = dict.fromkeys(_LIGHT, "") | {word: "" if same in _LIGHT else same for word, same in _SAME_WORDS.items()}
# Most have an opposite that turns a question round.
_DECISIVE_WORDS = """
    not no never with without except unless only off before after until under over above below first last
    more less than import export enable disable add remove open close start stop begin end increase decrease
    left right north south east west monday tuesday wednesday thursday friday saturday sunday
    nicht kein keine keinen nie ohne vor nach nur mehr weniger ne pas jamais sans avant après
    sin nunca antes não sem
"""
DECISIVE = frozenset(_DECISIVE_WORDS.split())
# "From A to B" is not "from B to A": words beside these keep their order.
_DIRECTED_WORDS = "from to than before after against over under by von nach als bis vor vers hasta desde"
_DIRECTED = frozenset(_DIRECTED_WORDS.split())
_FEWEST_IN_ANY_ORDER = 3
# Where more of the words within questions begin large, they do so by the rules of German or of titles: no names.
_MOST_NAMES = 0.2


def meaning(text: str) -> list[str]:
    """The words that make a question this one; all of them where one at most is left ("What are you?")."""
    words = text.split()
    kept = list(filter(None, map(_KEPT.get, words, words)))
    return kept if len(kept) > 1 else words


def in_any_order(text: str, words: tuple[str, ...]) -> tuple[str, ...]:
    """Of the words of meaning of `text` those that count where answers are equal; sorted unless the order counts."""
    kept = tuple(word for word in words if word not in _LIGHT_WITH_SAME_ANSWER)
    if len(kept) < 2:
        return words
    keeps_order = len(kept) < _FEWEST_IN_ANY_ORDER or not _DIRECTED.isdisjoint(text.split())
    return kept if keeps_order else tuple(sorted(kept))


def names(questions: Iterable[str]) -> set[str]:
    """Words that begin large within a sentence, as normalized: with another one a question asks something else."""
    found: set[str] = set()
    large = inner = 0
    for question in questions:
        words = question.split()
        inner += max(0, len(words) - 1)
        if question[1:].islower():
            continue
        for before, word in pairwise(words):
            if word[0].isupper() and before[-1] not in ".?!:":
                large += 1
                found.add(word)
    if large > _MOST_NAMES * inner:
        return set()
    return {part for word in found for part in normalize_question(word).split()}


def may_differ(word: str, fixed: Set[str]) -> bool:
    """Whether another word may stand for this one: not for a number, nor for one of the `fixed` words."""
    return word not in fixed and (word.isalpha() or not any(letter.isdigit() for letter in word))
