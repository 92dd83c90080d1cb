"""Pairs -> what is in them more than once: pairs, questions with one answer or several, and answers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from phinetune.sheet.findings import Pair, counted, examples, place, quoted, warn_of_rows
from phinetune.sheet.near_duplicates import near_duplicates
from phinetune.sheet.table import SheetWarning

# An answer to so many different questions, and to so many of a hundred pairs, is one that a model falls back on.
_FEWEST_REPEATS = 10
_REPEATED_SHARE = 0.05
# Where answers are labels ("yes", "refund"), they repeat on purpose; one of them for nearly everything still matters.
_LABELS = 0.1  # different answers for each pair
_REPEATED_LABEL_SHARE = 0.6


def warn_of_repeats(pairs: Sequence[Pair]) -> list[SheetWarning]:
    """Pairs and questions that come again, word for word, nearly, or with another answer; answers to everything."""
    asked: defaultdict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        asked[pair.asked].append(pair)
    repeated = [group for group in asked.values() if len(group) > 1]
    return [
        *_duplicates(pairs),
        *_questions_again(repeated),
        *_conflicts(repeated),
        *_near_duplicates(pairs),
        *_repeated_answers(pairs),
    ]


def first_of_each(pairs: Sequence[Pair]) -> list[bool]:
    """Of every pair, whether it is the first with its question and answer, word for word."""
    first: dict[tuple[str, str], int] = {}
    return [first.setdefault((pair.question, pair.answer), place) == place for place, pair in enumerate(pairs)]


def answers_repeat(pairs: Sequence[Pair]) -> bool:
    """Whether most questions share their answer with another one: facts, each asked for in several words."""
    answers = Counter({pair.asked: pair.told for pair in pairs}.values())
    return 2 * sum(times for times in answers.values() if times > 1) > answers.total()


def _duplicates(pairs: Sequence[Pair]) -> list[SheetWarning]:
    seen: dict[tuple[str, str], Pair] = {}
    again = []
    for pair in pairs:
        first = seen.setdefault((pair.question, pair.answer), pair)
        if first is not pair:
            again.append((pair, f"word for word like {place(first)}"))
    if not again:
        return []
    like_earlier = f"{counted(len(again), 'pair')} word for word like an earlier one, such as "
    message = f"{like_earlier}{examples([pair for pair, _ in again])}. They are used, and weigh more."
    return [warn_of_rows("duplicate_pairs", message, again)]


def _questions_again(repeated: Sequence[Sequence[Pair]]) -> list[SheetWarning]:
    """The same question and answer, with the question in other letters or punctuation."""
    again = []
    for group in repeated:
        written = {group[0].question}
        for pair in group[1:]:
            if pair.question not in written and pair.told == group[0].told:
                again.append((pair, f"asks the same as {place(group[0])} and has the same answer"))
            written.add(pair.question)
    if not again:
        return []
    message = (
        f"{counted(len(again), 'question')} the same as an earlier one but for capitals, spaces or punctuation, with "
        f"the same answer, such as {examples([pair for pair, _ in again])}. They are used, and weigh more."
    )
    return [warn_of_rows("duplicate_questions", message, again)]


def _conflicts(repeated: Sequence[Sequence[Pair]]) -> list[SheetWarning]:
    conflicts = [group for group in repeated if len({pair.answer for pair in group}) > 1]
    if not conflicts:
        return []
    found = []
    for group in conflicts:
        for pair in group:
            other = next(each for each in group if each.answer != pair.answer)
            found.append((pair, f"the same question is answered differently in {place(other)}"))
    message = (
        f"{counted(len(conflicts), 'question')} answered in different ways, such as "
        f"{examples([group[0] for group in conflicts])}. The model will waver between them."
    )
    return [warn_of_rows("conflicting_answers", message, found)]


def _near_duplicates(pairs: Sequence[Pair]) -> list[SheetWarning]:
    found: list[tuple[Pair, str]] = []
    first_of: list[Pair] = []
    different = 0
    for group in near_duplicates(pairs):
        first, asked = pairs[group[0]], pairs[group[0]].asked
        # What is the same but for punctuation is told elsewhere.
        near = [pairs[index] for index in group if pairs[index].asked != asked]
        for pair in near:
            differs = pair.told != first.told
            different += differs
            found.append((pair, f"asks nearly the same as {place(first)}" + " and is answered differently" * differs))
        first_of += near[:1]
    if not found:
        return []
    some = f" {different:,} of them have another answer: see that both are right." if different else ""
    message = (
        f"{counted(len(found), 'question')} nearly the same as an earlier one, such as {examples(first_of)}. "
        f"They are used, and weigh more; none is held out while its like is learnt.{some}"
    )
    return [warn_of_rows("near_duplicates", message, found)]


def _repeated_answers(pairs: Sequence[Pair]) -> list[SheetWarning]:
    questions: defaultdict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        questions[pair.told].add(pair.asked)
    labels = len(questions) <= _LABELS * len(pairs)
    fewest = max(_FEWEST_REPEATS, (_REPEATED_LABEL_SHARE if labels else _REPEATED_SHARE) * len(pairs))
    often = Counter({answer: len(asked) for answer, asked in questions.items() if len(asked) >= fewest})
    if not often:
        return []
    found = [pair for pair in pairs if pair.told in often]
    (answer, count), *others = often.most_common()
    example = next(pair.answer for pair in found if pair.told == answer)
    more = f" {counted(len(others), 'other answer')} comes again like this." if others else ""
    message = (
        f"The answer {quoted(example)} stands beside {count:,} different questions, {count / len(pairs):.0%} of all "
        f"pairs.{more} The model will tend to give it where it does not fit."
    )
    return [
        warn_of_rows(
            "repeated_answers",
            message,
            [(pair, f"one of {often[pair.told]:,} questions with the same answer") for pair in found],
        )
    ]
