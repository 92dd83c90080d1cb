"""The parts of a run that loop.py puts in order: a step, a measurement, a checkpoint, and the state to keep.

pairs of a step ─► take_step ─► StepDone or StepSkipped    ┐
held-out pairs  ─► validate  ─► Validated, the best so far ├─ or what went wrong, to be gone back from
adapter         ─► save      ─► checkpoint-N, later Saved  ┘
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel

from phinetune.errors import DoesNotFitError, PhinetuneError, RunError, TrainingError
from phinetune.events import Event, Saved, StepDone, StepSkipped, Validated, Warned
from phinetune.model import lora
from phinetune.model.rows import RowLoss
from phinetune.settings import TrainSettings
from phinetune.tokens.batch import micro_batches, validation_batches
from phinetune.tokens.encode import Example
from phinetune.tokens.order import StepOrder
from phinetune.training import recall
from phinetune.training.progress import Progress
from phinetune.training.recovery import Recovery, reason_to_skip, trouble_with_steps, was_skipped, weights_are_finite
from phinetune.training.room import Room
from phinetune.training.saving import Saver
from phinetune.training.schedule import Schedule
from phinetune.training.step import LossScale, StepResult, move_weights, step_gradients, step_seed, validation_loss

# What a part of the run comes to: what went wrong, in words, or None.
Part = Generator[Event, None, str | None]


@dataclass(frozen=True)
class RunParts:
    """A run under way. Its parts report events, note them in the history, and give back what went wrong."""

    model: PeftModel
    train: Sequence[Example]
    validation: Sequence[Example]
    settings: TrainSettings
    saver: Saver
    order: StepOrder
    schedule: Schedule
    parameters: Sequence[torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    progress: Progress
    room: Room
    recovery: Recovery

    def take_step(self, row_loss: RowLoss) -> Part:
        """One optimizer step, taken or skipped."""
        progress, step = self.progress, self.progress.step + 1
        chosen = [self.train[index] for index in self.order.indices(step - 1)]
        start = time.perf_counter()

        def gradients(pairs_per_row: int) -> tuple[StepResult, LossScale]:
            scale = LossScale(progress.loss_scale, progress.loss_scale_good_steps)
            result = step_gradients(
                row_loss,
                self.parameters,
                micro_batches(chosen, pairs_per_row),
                max_grad_norm=self.settings.max_grad_norm,
                seed=step_seed(self.settings.seed, step),
                loss_scale=scale,
            )
            return result, scale

        result, scale = yield from self.room.for_step(step, gradients)
        progress.step = step
        progress.loss_scale, progress.loss_scale_good_steps = scale.value, scale.good_steps
        epoch = step / self.schedule.steps_per_epoch
        reason = reason_to_skip(progress.history, result.train_loss, result.grad_norm)
        done: StepDone | StepSkipped
        if reason is None:
            rate = self.schedule.learning_rate(step) * progress.learning_rate_factor
            move_weights(self.optimizer, rate)
            seconds = time.perf_counter() - start
            done = StepDone(step, epoch, result.train_loss, rate, result.grad_norm, result.tokens, seconds)
        else:
            done = StepSkipped(
                step=step,
                epoch=epoch,
                reason=reason,
                train_loss=result.train_loss if math.isfinite(result.train_loss) else None,
                grad_norm=result.grad_norm if math.isfinite(result.grad_norm) else None,
                tokens=result.tokens,
                seconds=time.perf_counter() - start,
                rows=tuple(sorted(example.row for example in chosen)),
            )
        progress.history.append(done)
        yield done
        return trouble_with_steps(progress.history)

    def validate(self, row_loss: RowLoss) -> Part:
        """Measure, and keep the score. The untrained model is measured too, but is never the best one to keep."""
        progress, start = self.progress, time.perf_counter()
        loss = yield from self.room.for_validation(
            lambda tokens: validation_loss(self.model, row_loss, validation_batches(self.validation, tokens))
        )
        if not math.isfinite(loss):
            if progress.step == 0:
                raise TrainingError(
                    "The base model's held-out loss is no number in this number format, before any training.",
                    "Try --dtype fp32. If that does not help either, the model file is damaged: get it again.",
                )
            return "the held-out loss is no longer a number"
        is_best = progress.step > 0 and (progress.best_eval_loss is None or loss < progress.best_eval_loss)
        if is_best:
            progress.best_step, progress.best_eval_loss, progress.validations_without_best = progress.step, loss, 0
            self.recovery.keep_best()
        elif progress.step > 0:
            progress.validations_without_best += 1
        measured = Validated(
            step=progress.step,
            epoch=progress.step / self.schedule.steps_per_epoch,
            eval_loss=loss,
            is_best=is_best,
            tokens=sum(len(example.ids) for example in self.validation),
            seconds=time.perf_counter() - start,
        )
        progress.history.append(measured)
        yield measured
        return None

    def save(self, *, leaving: bool) -> Part:
        """A checkpoint, unless the adapter is broken: none of those reaches the disk.

        One that cannot be written is said, and the next is tried in its time. Leaving without one is an error.
        """
        yield from self.tell_saved()
        if not weights_are_finite(self.model):
            return "the adapter's weights are no longer numbers"
        step = self.progress.step
        saved = Saved(step, str(self.saver.checkpoints.folder.checkpoint(step)), self.progress.best_step == step)
        self.progress.history.append(saved)
        try:
            self.room.for_copy(
                f"save checkpoint-{step}",
                lambda: self.saver.begin(saved, self.model, self.optimizer, self.progress),
            )
        except (RunError, DoesNotFitError) as error:
            yield self._not_saved(saved, error, leaving)
            return None
        yield from self.tell_saved(wait=leaving or not self.saver.beside, leaving=leaving)
        return None

    def tell_saved(self, *, wait: bool = True, leaving: bool = False) -> Iterator[Event]:
        """What became of the checkpoint on its way, once that is known."""
        if (done := self.saver.finish(wait=wait)) is None:
            return
        saved, error = done
        if error is not None:
            yield self._not_saved(saved, error, leaving)
        else:
            self.recovery.checkpoint_saved()
            yield saved

    def _not_saved(self, saved: Saved, error: PhinetuneError, leaving: bool) -> Warned:
        self.progress.history.remove(saved)
        safe, _ = self.saver.checkpoints.newest_good()
        kept = f"checkpoint-{safe} is safe" if safe is not None else "no earlier one is there"
        if leaving:
            raise RunError(
                f"Stopped after step {saved.step}, which could not be saved: {error.message}",
                f"{kept[0].upper()}{kept[1:]}. {error.hint} The same command with --resume goes on.",
            ) from error
        return Warned(
            "checkpoint_failed",
            f"{error.message} Training goes on and the next checkpoint is tried as planned; until then {kept}.",
        )

    def keep(self) -> Iterator[Event]:
        """Put the state to keep in the model. What the last one knows by heart is told in any case, and of the kept one
        whether it knows where answers end."""
        chosen = recall.choose(self.train)
        yield from recall.measure(self.model, chosen, self.progress.step, self.room.validation_row)
        if self.kept_step != self.progress.step:
            lora.put_weights(self.model, self.recovery.best_weights())
            yield from recall.measure(self.model, chosen, self.kept_step, self.room.validation_row)
        held_out = recall.choose(self.validation)
        yield from recall.measure_endings(self.model, held_out, self.kept_step, self.room.validation_row)

    @property
    def kept_step(self) -> int:
        """The step whose state is the model when the run ends here."""
        return (self.settings.keep == "best" and self.progress.best_step) or self.progress.step

    @property
    def saves_now(self) -> bool:
        """Whether a checkpoint is due. After a skipped step the next one is waited for: the state may not be sound."""
        step = self.progress.step
        if self.progress.best_step == step or self.is_out_of_patience or step == self.schedule.total_steps:
            return True
        return self.schedule.saves_at(step) and not was_skipped(self.progress.history)

    @property
    def is_out_of_patience(self) -> bool:
        if self.settings.keep == "last":
            return False
        return 0 < self.settings.patience <= self.progress.validations_without_best
