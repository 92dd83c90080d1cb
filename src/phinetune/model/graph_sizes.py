"""Which rows go through the model as a recorded graph, and of what sizes: numbers alone, without a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_LONGEST_ROW = 6144  # tokens; of 8,900 an H200 has for longer than its processor needs to start the kernels
_SHARE_OF_MEMORY = 0.2  # of what is there beside the weights; longer rows keep the processor waiting anyway
_FILL = 256  # tokens: the sizes are multiples of it
_SHORT_ROW = 2048  # tokens; up to here all places are taken for answers: the head is a twentieth of the work
_LONGEST, _COARSE = 512, 4  # the first bound of the documents' lengths, and by how much the next is larger
# Rows of mostly short documents have kernels of their own (short_documents.py). One of their programs goes through a
# whole document, 64 tokens at a time, so that a long one is waited for.
_SHORT, _LONGEST_AMONG_SHORT, _MOSTLY = 64, 512, 2 / 3
_DOCUMENTS = 16  # their number is filled up to a multiple of this


@dataclass(frozen=True)
class Size:
    """What rows of one graph have in common. `longest` bounds the tokens of the documents; `are_short`: see
    `mostly_short`."""

    tokens: int
    answers: int
    documents: int
    longest: int
    are_short: bool
    is_training: bool

    @property
    def numbers(self) -> int:
        """Of a row of this size: ids, positions, targets, predictors, and where documents begin."""
        return 2 * self.tokens + 2 * self.answers + self.documents + 1


def size_of(lengths: Sequence[int], answers: int, *, is_training: bool) -> Size:
    """The smallest size that a row of documents of these lengths, with so many answer tokens, fits into."""
    filled = _multiple(sum(lengths), _FILL)
    longest = _LONGEST
    while longest < max(lengths):
        longest *= _COARSE
    share = filled  # of a long row, all or a half or a quarter ...: nearly the same for all rows of a sheet
    while filled > _SHORT_ROW and share // 2 >= answers:
        share //= 2
    return Size(
        tokens=filled,
        answers=share,
        documents=_multiple(len(lengths) + 1, _DOCUMENTS),
        longest=longest,
        are_short=mostly_short(lengths),
        is_training=is_training,
    )


def mostly_short(lengths: Sequence[int]) -> bool:
    """Whether a row of documents of so many tokens is for the kernels of short ones."""
    in_short = sum(length for length in lengths if length <= _SHORT)
    return max(lengths) <= _LONGEST_AMONG_SHORT and in_short >= _MOSTLY * sum(lengths)


def may_record(tokens: int, kept: int, room: int, *, recompute: bool) -> bool:
    """Whether rows filled up to so many tokens are recorded: their activations are kept rather than computed again,
    and there is room for them twice. `kept` are the bytes of these, `room` those beside the weights.
    """
    return not recompute and tokens <= _LONGEST_ROW and kept < _SHARE_OF_MEMORY * room


def _multiple(count: int, of: int) -> int:
    return -(-count // of) * of
