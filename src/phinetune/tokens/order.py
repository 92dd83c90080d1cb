"""Which examples make up step N: a pure function of (seed, N), so a resume remembers the step and nothing else."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class StepOrder:
    """Which examples belong to which optimizer step. Steps count from 0; an epoch's last step may be smaller."""

    count: int
    per_step: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.count // self.per_step)

    def indices(self, step: int) -> list[int]:
        """The examples of a step: a slice of the epoch's own shuffle, each example once an epoch."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return self.epoch(epoch)[place]

    def epoch(self, epoch: int) -> list[list[int]]:
        """The examples of every step of an epoch."""
        order = list(range(self.count))
        random.Random(f"{self.seed}/{epoch}").shuffle(order)
        return [order[start : start + self.per_step] for start in range(0, self.count, self.per_step)]
