"""When things happen in a run, as pure functions of the step. Steps count from 1."""

from __future__ import annotations

import math
from dataclasses import dataclass

from phinetune.settings import TrainSettings

_GUIDE_WARMUP = 100
_GUIDE_INTERVAL = 50


@dataclass(frozen=True)
class Schedule:
    """Learning rate, validations and checkpoints of a run of `total_steps` optimizer steps."""

    total_steps: int
    steps_per_epoch: int
    warmup_steps: int
    peak_learning_rate: float
    eval_steps: int | None
    save_steps: int | None

    def learning_rate(self, step: int) -> float:
        """Linear from 0 to the peak in `warmup_steps`, then linear to 0 at the end.

        Step 1 has a rate above 0 also without warm-up, and so does the last one: a step at rate 0 teaches nothing.
        """
        if step <= self.warmup_steps:
            return self.peak_learning_rate * step / (self.warmup_steps + 1)
        return self.peak_learning_rate * (self.total_steps + 1 - step) / (self.total_steps + 1 - self.warmup_steps - 1)

    def validates_at(self, step: int) -> bool:
        return self._due(step, self.eval_steps)

    def saves_at(self, step: int) -> bool:
        return self._due(step, self.save_steps)

    def _due(self, step: int, interval: int | None) -> bool:
        if step == self.total_steps:
            return True
        if interval is not None:
            return step % interval == 0
        return step % _GUIDE_INTERVAL == 0 or step % self.steps_per_epoch == 0


def plan(settings: TrainSettings, steps_per_epoch: int) -> Schedule:
    """The schedule for a sheet of `steps_per_epoch` optimizer steps.

    The guide's 100 warm-up steps suit long runs; in its own run of 140 steps they left 40 for learning at full
    rate. So 100 is a cap, at a tenth of the steps, unless set by hand.
    """
    total = max(1, math.ceil(steps_per_epoch * settings.epochs - 1e-9))
    warmup = min(_GUIDE_WARMUP, total // 10) if settings.warmup_steps is None else settings.warmup_steps
    return Schedule(
        total_steps=total,
        steps_per_epoch=steps_per_epoch,
        warmup_steps=min(warmup, total - 1),
        # Of a model that is not loaded, only the number of steps is asked for.
        peak_learning_rate=0.0 if settings.learning_rate == "auto" else settings.learning_rate,
        eval_steps=settings.eval_steps,
        save_steps=settings.save_steps,
    )
