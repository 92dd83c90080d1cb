"""What a diagnosis rests on: the curves of a run, and the facts that no curve shows.

Every measure here is a share or a median, so that it means the same for a loss of 3 as for one of 0.03, and one odd
step changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from phinetune.artifacts.curves import Curves, Numbers
from phinetune.artifacts.metrics import MetricsRow
from phinetune.events import StopReason

Severity = Literal["warning", "note", "good"]
# What fewer pairs or answers show may be chance: no praise rests on them.
TELLING = 10


@dataclass(frozen=True)
class Diagnosis:
    """One thing that a run shows. `number` is what `sentence` rests on; `advice` is "" when all is well."""

    name: str
    severity: Severity
    sentence: str
    number: float
    advice: str = ""


@dataclass(frozen=True)
class Facts:
    """What curves do not show. None is not known, and the rule that needs it stays silent.

    in_both_parts   held-out pairs whose question the training part asks too
    asked, ended    held-out questions that the tuned model was asked, and answers of it that ended by themselves
    endings_*       asked: held-out answers that it read whole, as the sheet has them; known: how many of them it would
                    end there
    learning_rate   the one that was asked for, where it was a number
    keep            best or last: which state was to become the model; kept_step is the one that did
    own_asked       training questions, of which the model answers own_right_kept word for word, and the state of the
                    last step own_right_last
    """

    train_pairs: int | None = None
    validation_pairs: int | None = None
    answers_cut: int | None = None
    in_both_parts: int | None = None
    asked: int | None = None
    ended: int | None = None
    planned_epochs: float | None = None
    learning_rate: float | None = None
    max_length: int | None = None
    lora_r: int | None = None
    lora_dropout: float | None = None
    rollbacks: int | None = None
    stopped: StopReason | None = None
    device: str | None = None
    seconds: float | None = None
    batch_size: int | None = None
    grad_accum: int | None = None
    keep: str | None = None
    kept_step: int | None = None
    own_asked: int | None = None
    own_right_kept: int | None = None
    own_right_last: int | None = None
    endings_asked: int | None = None
    endings_known: int | None = None


@dataclass(frozen=True)
class Evidence:
    """A run as the rules see it."""

    rows: Sequence[MetricsRow]
    facts: Facts

    @cached_property
    def curves(self) -> Curves:
        return Curves.of(self.rows)

    @property
    def steps(self) -> int:
        return len(self.curves.train)

    @property
    def hardly_held_out(self) -> bool:
        """Whether so few pairs are known to be held out that nobody knows how the model does on new questions."""
        return self.facts.validation_pairs is not None and self.facts.validation_pairs < TELLING

    @property
    def hardly_unseen(self) -> bool:
        """The same of those held-out pairs that the training part does not ask too."""
        held_out, both = self.facts.validation_pairs, self.facts.in_both_parts or 0
        return held_out is not None and held_out - both < TELLING

    @cached_property
    def peak_rate(self) -> float:
        return float(self.curves.rate.max()) if len(self.curves.rate) else 0.0

    @cached_property
    def before(self) -> float | None:
        """The validation loss of the base model."""
        curves = self.curves
        return float(curves.eval[0]) if len(curves.eval) and curves.eval_steps[0] == 0 else None

    @cached_property
    def began(self) -> float:
        """The training loss of the first steps. The median of a few: a single one may be an easy batch."""
        return float(np.median(self.curves.train[: max(1, min(5, self.steps // 4))]))

    @cached_property
    def ended(self) -> float:
        """The training loss of the last steps, at least a tenth of them."""
        return float(np.median(self.curves.train[-max(1, min(5, self.steps // 4), self.steps // 10) :]))

    @property
    def training_gain(self) -> float:
        """The share of the training loss that is gone."""
        return 1 - self.ended / self.began if self.began > 0 else 0.0

    @cached_property
    def validation_gain(self) -> float | None:
        """The share of the base model's validation loss that the best step took away."""
        best = self.curves.best
        return 1 - best[1] / self.before if best and self.before else None

    @cached_property
    def thirds(self) -> tuple[float, float, float] | None:
        """How far validation fell in each third of the learning rate spent; None when it was measured too seldom.

        Spent rate, not steps: the rate falls to 0 at the end, and a loss that is flat there says nothing.
        """
        curves = self.curves
        if self.before is None or len(curves.eval) < 3 or self.peak_rate == 0:
            return None
        spent = np.interp(curves.eval_steps, curves.rate_steps, np.cumsum(curves.rate), left=0.0)
        level = np.interp(np.linspace(0, spent[-1], 4), spent, curves.eval)
        first, middle, last = (float(fall) for fall in -np.diff(level))
        return first, middle, last

    @cached_property
    def pace(self) -> float | None:
        """How fast validation still fell in the last third, as a share of its mean pace; None when it fell nowhere.

        1 is a straight line, far from done; an exponential that has come down e-fold is at 0.58, and at 0.31 when it
        has done so twice.
        """
        fell = sum(self.thirds) if self.thirds else 0.0
        return 3 * self.thirds[2] / fell if self.thirds and fell > 0 else None

    @property
    def tokens_a_pair(self) -> float | None:
        """How long a training pair is on average; None where it is not known."""
        epochs = self.rows[-1].epoch if self.rows else 0.0
        seen = (self.facts.train_pairs or 0) * epochs
        return sum(row.tokens for row in self.rows) / seen if seen else None

    def trained_to(self, step: float) -> float:
        """The training loss around a step."""
        return float(np.interp(step, self.curves.steps, self.curves.trend))

    def epoch(self, step: float) -> float:
        return step / self.curves.steps_per_epoch


def running_median(values: Numbers, half_window: int) -> Numbers:
    """At each place the median of its neighbours to both sides, mirrored at the ends."""
    padded = np.pad(values, half_window, "reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half_window + 1)
    medians: Numbers = np.median(windows, axis=1)
    return medians
