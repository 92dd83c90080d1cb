"""Questions -> groups that ask the same in nearly the same words: typos, endings, articles, a clause moved.

"How do I reset my password?"  "How can I reset the pasword, please?"   a group
"What is the capital of France?"  "What is the capital of Spain?"       none: one word of meaning differs
"Convert miles to metres."  "Convert metres to miles."                  none: so does their order
"What is 12 + 5?"  "What is 12 + 6?"                                    none: so does a number

Where the answers are equal too, more may differ: "the address of my delivery" is "my delivery address" then.

Likeness of letters tells no line from the next, so questions are compared by their words of meaning. Each is first
replaced by the spelling that its near spellings share; questions with the same words then meet under one hash. The
work grows with the rows, not with their square.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import chain

from phinetune.sheet.findings import Pair
from phinetune.sheet.question_words import DECISIVE, in_any_order, may_differ, meaning, names

Words = tuple[str, ...]

# A typo in a shorter word makes another word as often as not: "pin" and "pan", "male" and "mile".
_SHORTEST_MISSPELT = 5
# Work grows with the square of a word's letters, and a word as long as a page is none.
_LONGEST_MISSPELT = 40
# From so many words of meaning on one may differ: when the answer is the same, and when it is not. With 6 of them
# "How many days of sick leave do I get?" asked the same as of parental leave.
_LONG_WITH_SAME_ANSWER = 8
_LONG = 20
_LONG_WITH_ONE_MORE = 6  # words of meaning, one of which is missing in a question with the same answer
_MOST_WITH_SAME_ANSWER = 20  # pairs; what answers more is a label, such as "yes", and tells nothing of the question
_MOST_TURNED = 10_000  # words in all turns of a question that repeats one: a text of "ha ha ha" is not turned round
# Scripts that write a word as several letters between spaces: Latin, Greek, Cyrillic, Armenian.
_ALPHABETS_END = "\u0590"


def near_duplicates(pairs: Sequence[Pair]) -> list[list[int]]:
    """The groups of two or more pairs that ask the same, entirely or nearly, as places in `pairs`.

    Groups and their members are in the order of the pairs, and depend on nothing else.
    """
    texts = [pair.asked for pair in pairs]
    meanings = {text: meaning(text) for text in dict.fromkeys(texts)}
    counts = Counter(chain.from_iterable(map(set, meanings.values())))
    spelling = _spellings(counts)
    keys = {text: tuple(map(spelling.get, words, words)) for text, words in meanings.items()}
    fixed = {spelling.get(word, word) for word in DECISIVE | names(dict.fromkeys(pair.question for pair in pairs))}
    union = _Union(len(pairs))
    first: dict[object, int] = {}
    for index, text in enumerate(texts):
        for shape in _shapes(keys[text], fixed):
            if (earlier := first.setdefault(shape, index)) != index:
                union.join(earlier, index)
    _join_with_same_answer(union, texts, keys, [pair.told for pair in pairs], fixed)
    groups: dict[int, list[int]] = defaultdict(list)
    for index in range(len(pairs)):
        groups[union.find(index)].append(index)
    return [group for group in groups.values() if len(group) > 1]


def _join_with_same_answer(
    union: _Union, texts: Sequence[str], keys: Mapping[str, Words], answers: Sequence[str], fixed: Set[str]
) -> None:
    """Join questions with equal answers that have the same words in another order, or a word more or another one."""
    counts = Counter(answers)
    told_again = [index for index, answer in enumerate(answers) if 1 < counts[answer] <= _MOST_WITH_SAME_ANSWER]
    first: dict[object, int] = {}
    whole: dict[tuple[Words, str], int] = {}
    ordered = {text: in_any_order(text, keys[text]) for text in dict.fromkeys(texts[index] for index in told_again)}
    for index in told_again:
        key, answer = keys[texts[index]], answers[index]
        union.join(whole.setdefault((ordered[texts[index]], answer), index), index)
        if _LONG_WITH_SAME_ANSWER <= len(key) < _LONG:
            for rest in _with_a_gap(key, fixed):
                union.join(first.setdefault((rest, answer), index), index)
    for index in told_again:
        words = ordered[texts[index]]
        if _LONG_WITH_ONE_MORE <= len(words) < _LONG:
            for place, word in enumerate(words):
                shorter = whole.get((words[:place] + words[place + 1 :], answers[index]))
                if shorter is not None and may_differ(word, fixed):
                    union.join(shorter, index)


def _shapes(key: Words, fixed: Set[str]) -> Iterator[object]:
    """What two questions share when they are near duplicates, whatever their answers."""
    yield _least_rotation(key)
    if len(key) >= _LONG:
        yield from _with_a_gap(key, fixed)


def _with_a_gap(key: Words, fixed: Set[str]) -> Iterator[int]:
    """The words without each one in turn, as a number; two that share one differ in that word alone.

    A sum that a word leaves costs one subtraction: 100,000 questions of 25 words in 8 s, 15 s as tuples.
    """
    placed = [hash(item) for item in enumerate(key)]
    total = hash(len(key)) + sum(placed)
    for place, word in enumerate(key):
        if may_differ(word, fixed):
            yield hash((place, total - placed[place]))


def _least_rotation(key: Words) -> Words:
    """ "If it rains, what happens?" and "What happens if it rains?" turn into the same."""
    least = min(key, default="")
    if (times := key.count(least)) == 1:
        place = key.index(least)
        return key[place:] + key[:place]
    if times * len(key) > _MOST_TURNED:
        return key
    return min((key[place:] + key[:place] for place, word in enumerate(key) if word == least), default=key)


def _spellings(counts: Counter[str]) -> dict[str, str]:
    """Words that are a commoner one with a typo or an ending -> that one.

    Two words a letter apart share a text that each becomes by losing a letter at most: looked up, not compared.
    """
    shapes: dict[str, list[str]] = defaultdict(list)
    for word in sorted(counts, key=lambda word: (-counts[word], word)):
        if _SHORTEST_MISSPELT - 1 <= len(word) <= _LONGEST_MISSPELT and word.isalpha() and max(word) < _ALPHABETS_END:
            # The first letter stays: it is seldom mistyped, and changes the meaning ("legal", "illegal").
            for shape in {word, *(word[:place] + word[place + 1 :] for place in range(1, len(word)))}:
                shapes[shape].append(word)
    spelling: dict[str, str] = {}
    for commonest, *others in shapes.values():
        for word in others:
            # A word that follows another one is followed by none: no chain from "state" over "stage" to "stale".
            if commonest not in spelling and word not in spelling and _is_misspelt(commonest, word):
                spelling[word] = commonest
    return {word: target for word, target in spelling.items() if target not in spelling}


def _is_misspelt(word: str, other: str) -> bool:
    """Of two words that become the same by losing a letter each: one missing, wrong or two swapped."""
    if max(len(word), len(other)) < _SHORTEST_MISSPELT:
        return False
    if len(word) != len(other):
        return abs(len(word) - len(other)) == 1
    places = [place for place, (one, two) in enumerate(zip(word, other, strict=True)) if one != two]
    if len(places) == 1:
        return len(word) >= _SHORTEST_MISSPELT
    start, end = places[0], places[-1]
    return end == start + 1 and word[start] == other[end] and word[end] == other[start]


class _Union:
    """Disjoint sets of the numbers below `count`; the smallest of a set stands for it."""

    def __init__(self, count: int) -> None:
        self._above = list(range(count))

    def find(self, one: int) -> int:
        while self._above[one] != one:
            self._above[one] = self._above[self._above[one]]
            one = self._above[one]
        return one

    def join(self, one: int, other: int) -> None:
        first, second = sorted((self.find(one), self.find(other)))
        self._above[second] = first
