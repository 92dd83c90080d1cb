"""`--lr auto`: a few short runs on the sheet itself tell which learning rate suits it and the model.

    the rate usual for a model of this size ─► try it and twice it ─► on in the better direction until it gets worse

A short run takes the first steps of the real one, with a schedule of its own from warm-up to 0, and is judged by the
held-out pairs. Every one begins with the same untrained adapter, and so does the real run afterwards.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

from peft import PeftModel

from phinetune.events import Event, RateChosen, RateTried
from phinetune.model import lora
from phinetune.model.rows import RowLoss
from phinetune.settings import TrainSettings
from phinetune.tokens.batch import micro_batches, validation_batches
from phinetune.tokens.encode import Example
from phinetune.tokens.order import StepOrder
from phinetune.training.check import proven_row_loss
from phinetune.training.progress import Progress
from phinetune.training.room import Room
from phinetune.training.schedule import plan
from phinetune.training.step import (
    LossScale,
    StepResult,
    drop_gradients,
    make_optimizer,
    move_weights,
    step_gradients,
    validation_loss,
)

_SHARE = 8  # a short run takes an eighth of the steps
_FEWEST, _MOST = 8, 32
_HELD_OUT = 64  # pairs that judge it
_TRIES = 5


def usual_rate(hidden_size: int) -> float:
    """The rate that LoRA usually likes best in a model of this width.

    5e-4 (2000 / width)^0.781: fitted to Llama models by Thinking Machines Lab ("LoRA Without Regret", 2025, and the
    Tinker documentation), for scaling by alpha / r with alpha = 32. 4e-4 for Phi-2, 1.3e-3 for SmolLM2-135M.
    """
    return 5e-4 * math.pow(2000 / hidden_size, 0.781)


@dataclass(frozen=True)
class Search:
    """The short runs of one model and sheet."""

    model: PeftModel
    train: Sequence[Example]
    held_out: Sequence[Example]
    settings: TrainSettings
    pairs_per_row: int

    def run(self) -> Iterator[Event]:
        """Reports every rate tried and, last, the one chosen; the adapter is left untrained.

        With nothing held out to judge by, the usual rate is chosen. Raises TrainingError as training does when the
        memory is too small.
        """
        untrained, start = lora.copy_weights(self.model), time.perf_counter()
        usual = float(f"{usual_rate(self.model.get_base_model().config.hidden_size):.1e}")
        losses: dict[float, float] = {}
        if not self.held_out:
            yield RateChosen(usual, usual, 0, 0.0)
            return
        try:
            with proven_row_loss(self.model, self.train) as (row_loss, warning):
                if warning is not None:
                    yield warning
                while (rate := _next(losses, usual)) is not None:
                    lora.put_weights(self.model, untrained)
                    losses[rate] = yield from self._short_run(row_loss, rate)
                    yield RateTried(rate, losses[rate], self.steps)
        finally:
            lora.put_weights(self.model, untrained)
            drop_gradients([parameter for _, parameter in lora.trainable(self.model)])
            self.model.eval()
        best = _best(losses)
        yield RateChosen(best, usual, self.steps, time.perf_counter() - start)

    @property
    def steps(self) -> int:
        total = plan(self.settings, self._order.steps_per_epoch).total_steps
        return min(total, max(_FEWEST, min(_MOST, total // _SHARE)))

    @property
    def _order(self) -> StepOrder:
        return StepOrder(len(self.train), self.settings.examples_per_step, self.settings.seed)

    def _short_run(self, row_loss: RowLoss, rate: float) -> Generator[Event, None, float]:
        """The held-out loss after it; infinite where the numbers went wrong."""
        order = self._order
        settings = self.settings.model_copy(
            update={"learning_rate": rate, "epochs": self.steps / order.steps_per_epoch, "warmup_steps": None}
        )
        schedule, parameters = plan(settings, order.steps_per_epoch), [p for _, p in lora.trainable(self.model)]
        optimizer = make_optimizer(parameters, settings.weight_decay)
        scale = LossScale.for_dtype(self.model.get_base_model().dtype)
        room = Room(self.model, self.train, self.held_out, Progress(), self.pairs_per_row)
        self.model.train()
        for step in range(1, schedule.total_steps + 1):
            chosen = [self.train[index] for index in order.indices(step - 1)]

            def gradients(pairs_per_row: int, chosen: list[Example] = chosen, step: int = step) -> StepResult:
                rows = micro_batches(chosen, pairs_per_row)
                norm, seed = settings.max_grad_norm, settings.seed * 1_000_003 + step
                return step_gradients(row_loss, parameters, rows, max_grad_norm=norm, seed=seed, loss_scale=scale)

            result = yield from room.for_step(step, gradients)
            if not (math.isfinite(result.train_loss) and math.isfinite(result.grad_norm)):
                return math.inf
            move_weights(optimizer, schedule.learning_rate(step))
        held_out = self.held_out[:_HELD_OUT]
        loss = yield from room.for_validation(
            lambda tokens: validation_loss(self.model, row_loss, validation_batches(held_out, tokens))
        )
        return loss if math.isfinite(loss) else math.inf


def _best(losses: dict[float, float]) -> float:
    """The rate with the lowest loss; of equal ones the lower, as when both broke the numbers."""
    return min(losses, key=lambda rate: (losses[rate], rate))


def _next(losses: dict[float, float], usual: float) -> float | None:
    """The next rate to try: the usual one, its double, and on by factors of 2 beside the best so far."""
    if len(losses) == _TRIES:
        return None
    if not losses:
        return usual
    best = _best(losses)
    for rate in (best * 2, best / 2):
        if rate not in losses and rate < 1:
            return rate
    return None
