"""`--lr auto`: short runs on a part of the sheet tell which learning rate suits it and the model.

    the rate usual for a model of this size ─► beside it twice and half of it ─► on in the better direction

A short run sees an eighth of the pairs as often as the real run sees all, so that it learns them by heart like that
one: runs of a single epoch asked for four times the usual rate and beyond on all of four sheets (SmolLM2-135M). It is
judged by its best state on the held-out pairs, as the real run keeps its best. Every one begins with the same untrained
adapter, and so does the real run afterwards.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from random import Random

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
from phinetune.training.schedule import SEARCH_HELD_OUT, SEARCH_TRIES, plan, short_run
from phinetune.training.step import (
    LossScale,
    StepResult,
    drop_gradients,
    make_optimizer,
    move_weights,
    step_gradients,
    step_seed,
    validation_loss,
)

_STEPS_AN_EPOCH = 8
_HOPELESS = 1.05  # so much above its best, and a short run ends
_BETTER = 0.98  # what another rate has to leave of the loss to be preferred; less is noise of the small part


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
        part = self.part()
        try:
            with proven_row_loss(self.model, part) as (row_loss, warning):
                if warning is not None:
                    yield warning
                while (rate := _next(losses, usual)) is not None:
                    lora.put_weights(self.model, untrained)
                    losses[rate] = yield from self._short_run(row_loss, part, rate)
                    yield RateTried(rate, losses[rate], len(part))
        finally:
            lora.put_weights(self.model, untrained)
            drop_gradients([parameter for _, parameter in lora.trainable(self.model)])
            self.model.eval()
        yield RateChosen(_best(losses, usual), usual, len(part), time.perf_counter() - start)

    def part(self) -> list[Example]:
        """The pairs of the short runs, chosen by the seed."""
        count, _ = short_run(len(self.train), self.settings.epochs)
        return Random(self.settings.seed).sample(list(self.train), count)

    def _short_run(self, row_loss: RowLoss, part: list[Example], rate: float) -> Generator[Event, None, float]:
        """The lowest held-out loss on its way; infinite where the numbers went wrong."""
        order = StepOrder(len(part), -(-len(part) // _STEPS_AN_EPOCH), self.settings.seed)
        _, epochs = short_run(len(self.train), self.settings.epochs)
        settings = self.settings.model_copy(update={"learning_rate": rate, "epochs": epochs, "warmup_steps": None})
        schedule, parameters = plan(settings, order.steps_per_epoch), [p for _, p in lora.trainable(self.model)]
        optimizer = make_optimizer(parameters, settings.weight_decay)
        scale = LossScale.for_dtype(self.model.get_base_model().dtype)
        room = Room(self.model, part, self.held_out, Progress(), self.pairs_per_row)
        held_out, best = self.held_out[:SEARCH_HELD_OUT], math.inf
        self.model.train()
        for step in range(1, schedule.total_steps + 1):
            chosen = [part[index] for index in order.indices(step - 1)]

            def gradients(pairs_per_row: int, chosen: list[Example] = chosen, step: int = step) -> StepResult:
                rows = micro_batches(chosen, pairs_per_row)
                norm, seed = settings.max_grad_norm, step_seed(settings.seed, step)
                return step_gradients(row_loss, parameters, rows, max_grad_norm=norm, seed=seed, loss_scale=scale)

            result = yield from room.for_step(step, gradients)
            if not (math.isfinite(result.train_loss) and math.isfinite(result.grad_norm)):
                break
            move_weights(optimizer, schedule.learning_rate(step))
            if step % order.steps_per_epoch and step != schedule.total_steps:
                continue
            loss = yield from room.for_validation(
                lambda tokens: validation_loss(self.model, row_loss, validation_batches(held_out, tokens))
            )
            if not math.isfinite(loss) or loss > _HOPELESS * best:
                break
            best = min(best, loss)
        return best


def _best(losses: dict[float, float], usual: float) -> float:
    """The usual rate, or the one with the lowest loss where that is clearly lower."""
    best = min(losses, key=lambda rate: (losses[rate], rate))
    broke = not math.isfinite(losses[usual])
    return best if broke or losses[best] < _BETTER * losses[usual] else usual


def _next(losses: dict[float, float], usual: float) -> float | None:
    """The next rate to try: the usual one, its double and half, and on by factors of 2 beside the best so far."""
    if len(losses) == SEARCH_TRIES:
        return None
    if not losses:
        return usual
    best = _best(losses, usual)
    for rate in (best * 2, best / 2):
        if rate not in losses and rate < 1:
            return rate
    return None
