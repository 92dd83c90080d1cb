"""Pairs -> answers that are much shorter or longer than the others, and a histogram of lengths.

histogram([3, 5, 9, 40])  ->  (Bar(1, 4, 1), Bar(5, 8, 1), Bar(9, 16, 1), Bar(17, 32, 0), Bar(33, 64, 1))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from phinetune.sheet.findings import Pair, counted, quoted, warn_of_rows
from phinetune.sheet.table import SheetWarning

_ENOUGH = 20  # pairs, to say what is usual among them
_USUAL_ANSWER = 40  # characters in the middle, for a few letters to be a surprise
_VERY_SHORT = 3
_SHORT_SHARE = 0.25  # of the pairs; where more are very short, that is how answers are here
_VERY_LONG = 1000
_TIMES_AS_LONG = 10
# Training weighs pairs by the length of their answers: this share of them must not hold more than half of all text.
_LONGEST_SHARE = 0.05
_TEXT_SHARE = 0.5
_CELL_LIMIT = 32_767  # characters, Excel's own


@dataclass(frozen=True)
class Bar:
    """How many lengths lie between two bounds, both included."""

    low: int
    high: int
    count: int


def histogram(lengths: Sequence[int]) -> tuple[Bar, ...]:
    """Bars from the shortest to the longest, each twice as wide as the one before; none for no lengths."""
    if not lengths:
        return ()
    # 1 to 4, 5 to 8, 9 to 16, …: the number of bits of what lies below.
    classes = [max(2, (length - 1).bit_length()) if length > 1 else 2 for length in lengths]
    return tuple(
        Bar(1 if size == 2 else (1 << size - 1) + 1, 1 << size, classes.count(size))
        for size in range(min(classes), max(classes) + 1)
    )


def warn_of_lengths(pairs: Sequence[Pair]) -> list[SheetWarning]:
    """Answers that are very short or very long, cut by a spreadsheet, or hold most of the text."""
    cut = [(pair, f"{_CELL_LIMIT:,} characters: all that a cell holds") for pair in pairs if _fills_a_cell(pair)]
    warnings = []
    if cut:
        message = (
            f"{counted(len(cut), 'cell')} as long as a cell can be ({_CELL_LIMIT:,} characters), so the rest was "
            "probably lost when the sheet was saved. Look at how they end."
        )
        warnings.append(warn_of_rows("full_cells", message, cut))
    if len(pairs) < _ENOUGH:
        return warnings
    usual = median(len(pair.answer) for pair in pairs)
    return [*warnings, *_short(pairs, usual), *_long(pairs, usual), *_unbalanced(pairs)]


def _fills_a_cell(pair: Pair) -> bool:
    return _CELL_LIMIT in (len(pair.question), len(pair.answer))


def _short(pairs: Sequence[Pair], usual: float) -> list[SheetWarning]:
    found = [pair for pair in pairs if len(pair.answer) <= _VERY_SHORT]
    if not found or usual < _USUAL_ANSWER or len(found) > _SHORT_SHARE * len(pairs):
        return []
    message = (
        f"{counted(len(found), 'answer')} of {_VERY_SHORT} letters or fewer, such as {quoted(found[0].answer)}, where "
        f"{usual:,.0f} are usual. The model learns from them to be curt; write them out if they are not meant so."
    )
    return [
        warn_of_rows("short_answers", message, [(pair, f"very short answer: {quoted(pair.answer)}") for pair in found])
    ]


def _long(pairs: Sequence[Pair], usual: float) -> list[SheetWarning]:
    found = [pair for pair in pairs if len(pair.answer) > max(_VERY_LONG, _TIMES_AS_LONG * usual)]
    if not found:
        return []
    longest = max(len(pair.answer) for pair in found)
    message = (
        f"{counted(len(found), 'answer')} more than {_TIMES_AS_LONG} times as long as usual, up to {longest:,} "
        f"characters where {usual:,.0f} are usual. They weigh as much as many others; shorten or divide them."
    )
    return [
        warn_of_rows(
            "long_answers", message, [(pair, f"very long answer: {len(pair.answer):,} characters") for pair in found]
        )
    ]


def _unbalanced(pairs: Sequence[Pair]) -> list[SheetWarning]:
    longest = sorted(pairs, key=lambda pair: -len(pair.answer))[: int(_LONGEST_SHARE * len(pairs))]
    share = sum(len(pair.answer) for pair in longest) / sum(len(pair.answer) for pair in pairs)
    if share <= _TEXT_SHARE:
        return []
    message = (
        f"Lengths are unbalanced: the longest {counted(len(longest), 'answer')} hold {share:.0%} of all text. "
        "Training weighs every word alike, so the model learns mostly from these."
    )
    return [
        warn_of_rows(
            "unbalanced_lengths", message, [(pair, f"{len(pair.answer):,} characters of answer") for pair in longest]
        )
    ]
