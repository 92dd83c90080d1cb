"""A whole run, readable top to bottom: examples and a model go in, events come out.

`fit()` prints nothing and knows no user interface; whoever iterates over it shows, stores or ignores the events.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel

from phinetune.errors import RunError, TrainingError
from phinetune.events import Event, Finished, Saved, Started, StepDone, StopReason, Validated, Warned
from phinetune.model import lora
from phinetune.model.rows import RowLoss
from phinetune.settings import TrainSettings
from phinetune.tokens.batch import Batch, micro_batches, validation_batches
from phinetune.tokens.encode import Example
from phinetune.tokens.order import StepOrder
from phinetune.training.check import proven_row_loss
from phinetune.training.checkpoint import Checkpoints
from phinetune.training.progress import Progress
from phinetune.training.schedule import Schedule, plan
from phinetune.training.step import LossScale, optimizer_step, validation_loss

_VALIDATION_ROW = 2048  # tokens; enough to fill the device, little enough to fit where a training step fits


@dataclass(frozen=True)
class Corpus:
    """What a run learns from and what it is measured on."""

    train: Sequence[Example]
    validation: Sequence[Example]


def fit(
    model: PeftModel,
    corpus: Corpus,
    settings: TrainSettings,
    checkpoints: Checkpoints,
    *,
    pairs_per_row: int | None = None,
    resume_from: int | None = None,
    stop_requested: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Train the adapter of `model` in place; the best one is in it when `Finished` is reported.

    `pairs_per_row` is how many pairs go through the model at once, where memory allows more than the settings' batch
    size; the step is the same. `resume_from` is the step of the checkpoint to go on from. When `stop_requested`
    becomes true the current step is finished, a checkpoint saved, and the run ends as interrupted. A checkpoint that
    cannot be saved is a warning while training goes on.
    Raises TrainingError when the numbers stop being finite, RunError when an interrupted run cannot be saved.
    """
    order = StepOrder(len(corpus.train), settings.examples_per_step, settings.seed)
    schedule = plan(settings, order.steps_per_epoch)
    parameters = [parameter for _, parameter in lora.trainable(model)]
    optimizer = torch.optim.AdamW(parameters, lr=0.0, weight_decay=settings.weight_decay, fused=True)
    held_out = validation_batches(corpus.validation, _VALIDATION_ROW)
    scale = LossScale.for_dtype(model.get_base_model().dtype)
    progress = Progress(loss_scale=scale.value)
    best: dict[str, torch.Tensor] = {}  # the best adapter: in memory, so that the end needs no file of long ago
    if resume_from is not None:
        resumed = checkpoints.resume(resume_from, model, optimizer)
        progress, best = resumed.progress, resumed.best
        if resumed.warning is not None:
            yield resumed.warning
        scale = LossScale(progress.loss_scale, progress.loss_scale_good_steps)

    def record(event: Event) -> Event:
        progress.history.append(event)
        return event

    yield Started(
        step=progress.step,
        total_steps=schedule.total_steps,
        steps_per_epoch=schedule.steps_per_epoch,
        examples_per_step=settings.examples_per_step,
        warmup_steps=schedule.warmup_steps,
        train_tokens_per_epoch=sum(len(example.ids) for example in corpus.train),
    )
    interrupted = False
    with proven_row_loss(model, corpus.train) as (row_loss, warning):
        if warning is not None:
            yield warning
        if held_out and progress.step == 0:
            yield record(_validate(model, row_loss, held_out, progress, schedule))
        model.train()
        while progress.step < schedule.total_steps and not _out_of_patience(progress, settings) and not interrupted:
            step = progress.step + 1
            chosen = [corpus.train[index] for index in order.indices(step - 1)]
            start = time.perf_counter()
            result = optimizer_step(
                row_loss,
                parameters,
                optimizer,
                micro_batches(chosen, pairs_per_row or settings.batch_size),
                learning_rate=schedule.learning_rate(step),
                max_grad_norm=settings.max_grad_norm,
                seed=_step_seed(settings.seed, step),
                loss_scale=scale,
            )
            progress.step = step
            progress.loss_scale, progress.loss_scale_good_steps = scale.value, scale.good_steps
            yield record(
                StepDone(
                    step=step,
                    epoch=step / schedule.steps_per_epoch,
                    train_loss=result.train_loss,
                    learning_rate=schedule.learning_rate(step),
                    grad_norm=result.grad_norm,
                    tokens=result.tokens,
                    seconds=time.perf_counter() - start,
                )
            )
            if held_out and schedule.validates_at(step):
                yield record(_validate(model, row_loss, held_out, progress, schedule))
                if progress.best_step == step:
                    best = lora.copy_weights(model)
            interrupted = stop_requested() and step < schedule.total_steps
            must_save = interrupted or _out_of_patience(progress, settings) or progress.best_step == step
            if must_save or schedule.saves_at(step):
                yield _save(checkpoints, model, optimizer, progress, leaving=interrupted)
        if not interrupted and progress.best_step not in (0, progress.step):
            lora.put_weights(model, best)
    model.eval()
    yield Finished(
        step=progress.step,
        epochs=progress.step / schedule.steps_per_epoch,
        stopped=_stop_reason(progress, settings, interrupted),
        best_step=progress.best_step or progress.step,
        best_eval_loss=progress.best_eval_loss,
        seconds=progress.seconds,
        tokens=progress.tokens,
    )


def _save(
    checkpoints: Checkpoints, model: PeftModel, optimizer: torch.optim.Optimizer, progress: Progress, *, leaving: bool
) -> Event:
    """Save a checkpoint, or say that it failed: the next one is tried in its time. Leaving without one is an error."""
    step = progress.step
    saved = Saved(step, str(checkpoints.folder.checkpoint(step)), progress.best_step == step)
    progress.history.append(saved)
    try:
        checkpoints.save(model, optimizer, progress)
    except RunError as error:
        progress.history.pop()
        safe, _ = checkpoints.newest_good()
        kept = f"checkpoint-{safe} is safe" if safe is not None else "no earlier one is there"
        if leaving:
            raise RunError(
                f"Stopped after step {step}, which could not be saved: {error.message}",
                f"{kept[0].upper()}{kept[1:]}. {error.hint} The same command with --resume goes on.",
            ) from error
        return Warned(
            "checkpoint_failed",
            f"{error.message} Training goes on and the next checkpoint is tried as planned; until then {kept}.",
        )
    return saved


def _validate(
    model: PeftModel, row_loss: RowLoss, batches: Sequence[Batch], progress: Progress, schedule: Schedule
) -> Validated:
    """Measure, and keep the score. The untrained model is measured too, but is never the best one to keep."""
    start = time.perf_counter()
    loss = validation_loss(model, row_loss, batches)
    if not math.isfinite(loss):
        raise TrainingError(
            f"The held-out loss is no longer a number after step {progress.step}.",
            "Lower the learning rate (try --lr at half its value), or use --dtype fp32.",
        )
    is_best = progress.step > 0 and (progress.best_eval_loss is None or loss < progress.best_eval_loss)
    if is_best:
        progress.best_step, progress.best_eval_loss, progress.validations_without_best = (
            progress.step,
            loss,
            0,
        )
    elif progress.step > 0:
        progress.validations_without_best += 1
    return Validated(
        step=progress.step,
        epoch=progress.step / schedule.steps_per_epoch,
        eval_loss=loss,
        is_best=is_best,
        tokens=sum(batch.tokens for batch in batches),
        seconds=time.perf_counter() - start,
    )


def _out_of_patience(progress: Progress, settings: TrainSettings) -> bool:
    return 0 < settings.patience <= progress.validations_without_best


def _stop_reason(progress: Progress, settings: TrainSettings, interrupted: bool) -> StopReason:
    if interrupted:
        return "interrupted"
    return "early_stopping" if _out_of_patience(progress, settings) else "finished"


def _step_seed(seed: int, step: int) -> int:
    # Consecutive seeds of the generator give unrelated streams; the product keeps runs of different seeds apart.
    return seed * 1_000_003 + step
