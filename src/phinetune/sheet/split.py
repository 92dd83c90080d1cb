"""Pairs -> those to train on and those held out, no question on both sides, nor one that is nearly the same.

490 different questions, share 0.1             ->  441 to train on, 49 held out
"Who?", "who", "WHO ?!"                        ->  always together
"Where is the door?", "Where's the door pls"   ->  together; asked in other words, a fact may be on both sides
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from phinetune.sheet.findings import Pair
from phinetune.sheet.near_duplicates import near_duplicates


@dataclass(frozen=True)
class Split:
    """Both in the order of the sheet."""

    train: tuple[Pair, ...]
    validation: tuple[Pair, ...]


def split(pairs: Sequence[Pair], validation_share: float, seed: int) -> Split:
    """Hold out about `validation_share` of the pairs, chosen by `seed` alike on every machine.

    Pairs with the same question stay together, and so do those with nearly the same, unless all are. With two or more
    questions neither side is empty; a single question leaves nothing to hold out, and `validation` is empty.
    """
    groups = _gather(len(pairs), near_duplicates(pairs))
    if len(groups) < 2:
        same: defaultdict[str, list[int]] = defaultdict(list)
        for index, pair in enumerate(pairs):
            same[pair.asked].append(index)
        groups = list(same.values())
    held = _choose(groups, validation_share, seed)
    return Split(
        train=tuple(pair for index, pair in enumerate(pairs) if index not in held),
        validation=tuple(pair for index, pair in enumerate(pairs) if index in held),
    )


def _gather(count: int, groups: Sequence[list[int]]) -> list[list[int]]:
    """These groups and all others alone, by their first member."""
    together = {group[0]: group for group in groups}
    follow = {index for group in groups for index in group[1:]}
    return [together.get(index, [index]) for index in range(count) if index not in follow]


def _choose(groups: list[list[int]], share: float, seed: int) -> set[int]:
    if len(groups) < 2:
        return set()
    Random(seed).shuffle(groups)
    wanted = max(1, round(share * sum(map(len, groups))))
    held: list[int] = []
    # One group at least stays on the other side, however large the share.
    for group in groups[1:]:
        if len(held) + len(group) <= wanted:
            held += group
    smallest: list[int] = min(groups, key=len)
    return set(held or smallest)
