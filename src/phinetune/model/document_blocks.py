"""Which documents of a row share a block of attention, and which blocks keep their probabilities. Pure arithmetic,
so that a plan can count their memory without tensors; see documents.py for what a block is.
"""

from __future__ import annotations

from collections.abc import Sequence

# What a block costs beyond its arithmetic, in multiply-adds of a product. 16 chat pairs, 9 heads of 64, forward and
# backward: 5.8 ms with 200,000 (six blocks), 5.4 ms with 700,000 (four), 4.8 ms with 2,000,000 (three).
BLOCK_OVERHEAD = 2_000_000
KEEP_UP_TO = 128  # probabilities of longer documents are computed again on the way back: they grow with length²
SCORES_AT_ONCE = 1 << 24  # elements, 64 MB: very long documents go through head by head


def divide(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Documents, shortest first, cut into blocks so that padding and overhead together cost least."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    overhead = BLOCK_OVERHEAD // width
    best: list[tuple[int, int]] = [(0, 0)]  # cost of the first n documents, and where their last block starts
    for end in range(1, len(order) + 1):
        cells = lengths[order[end - 1]] ** 2
        best.append(min((best[start][0] + (end - start) * cells + overhead, start) for start in range(end)))
    blocks, end = [], len(order)
    while end:
        start = best[end][1]
        blocks.append(order[start:end])
        end = start
    return blocks[::-1]
