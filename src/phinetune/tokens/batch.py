"""Examples -> padding-free rows.

examples   [a a a a] [b b] [c c c]
row        ids        a a a a b b c c c      one row of documents laid end to end, no padding anywhere
           positions  0 1 2 3 0 1 0 1 2      restart in every document
           lengths    4 2 3                  attention is confined to each
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from phinetune.tokens.encode import Example


@dataclass(frozen=True)
class Batch:
    """One row of documents.

    ids, positions: int64 [1, T]. targets: int64 [A], the A answer tokens of the row in order.
    predictors: int64 [A], the place in the row whose output predicts each target (the token before it).
    lengths: tokens of each document; they sum to T.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor
    predictors: torch.Tensor
    lengths: tuple[int, ...]

    @property
    def tokens(self) -> int:
        return self.ids.shape[1]

    @property
    def answer_tokens(self) -> int:
        return self.targets.shape[0]

    def to(self, device: torch.device) -> Batch:
        return replace(
            self,
            ids=self.ids.to(device),
            positions=self.positions.to(device),
            targets=self.targets.to(device),
            predictors=self.predictors.to(device),
        )


def lay_out(examples: Sequence[Example]) -> Batch:
    """The examples as one row, in the given order."""
    ids: list[int] = []
    positions: list[int] = []
    predictors: list[int] = []
    for example in examples:
        start = len(ids)
        ids += example.ids
        positions += range(len(example.ids))
        predictors += range(start + example.prompt_length - 1, start + len(example.ids) - 1)
    row = torch.tensor(ids)
    places = torch.tensor(predictors)
    return Batch(
        ids=row[None],
        positions=torch.tensor(positions)[None],
        targets=row[places + 1],
        predictors=places,
        lengths=tuple(len(example.ids) for example in examples),
    )


def micro_batches(examples: Sequence[Example], batch_size: int) -> list[Batch]:
    """The examples of one step as rows of at most `batch_size` documents."""
    return [lay_out(examples[i : i + batch_size]) for i in range(0, len(examples), batch_size)]


def in_rows(examples: Sequence[Example], tokens_per_row: int) -> list[list[Example]]:
    """The examples in their order, at most `tokens_per_row` tokens together, or one example."""
    rows: list[list[Example]] = []
    filled = 0
    for example in examples:
        if not rows or filled + len(example.ids) > tokens_per_row:
            rows.append([])
            filled = 0
        rows[-1].append(example)
        filled += len(example.ids)
    return rows


def validation_batches(examples: Sequence[Example], tokens_per_row: int) -> list[Batch]:
    """All examples as rows of about `tokens_per_row` tokens, documents of like length together."""
    return [lay_out(row) for row in in_rows(sorted(examples, key=lambda e: len(e.ids)), tokens_per_row)]
