"""A whole run, readable top to bottom: examples and a model go in, events come out. What each part does, says parts.py.

`fit()` prints nothing and knows no user interface; whoever iterates over it shows, stores or ignores the events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from peft import PeftModel

from phinetune.errors import PhinetuneError
from phinetune.events import Event, Finished, Started, Warned
from phinetune.model import lora
from phinetune.settings import TrainSettings
from phinetune.tokens.encode import Example
from phinetune.tokens.order import StepOrder
from phinetune.training.check import proven_row_loss
from phinetune.training.checkpoint import Checkpoints
from phinetune.training.parts import RunParts
from phinetune.training.progress import Progress
from phinetune.training.recovery import Recovery
from phinetune.training.room import Room
from phinetune.training.saving import Saver, has_time_beside
from phinetune.training.schedule import plan
from phinetune.training.step import LossScale, make_optimizer


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
    """Train the adapter of `model` in place; the one to keep is in it when `Finished` is reported.

    `pairs_per_row` is how many pairs go through the model at once, where memory allows more than the settings' batch
    size; the step is the same. `resume_from` is the step of the checkpoint to go on from. When `stop_requested`
    becomes true the current step is finished, a checkpoint saved or gone back to, and the run ends as interrupted. A
    checkpoint that cannot be saved is a warning while training goes on. On a GPU it is written meanwhile: `Saved` comes
    when it is there, some steps later, and leaving waits for it. Memory that runs out is met with smaller rows
    (room.py), numbers that go wrong by skipping steps and going back (recovery.py).
    Raises TrainingError when neither helps, RunError when an interrupted run cannot be saved.
    """
    run, warning = _start(model, corpus, settings, checkpoints, pairs_per_row or settings.batch_size, resume_from)
    if warning is not None:
        yield warning
    progress, schedule = run.progress, run.schedule
    yield Started(
        step=progress.step,
        total_steps=schedule.total_steps,
        steps_per_epoch=schedule.steps_per_epoch,
        examples_per_step=settings.examples_per_step,
        warmup_steps=schedule.warmup_steps,
        train_tokens_per_epoch=sum(len(example.ids) for example in corpus.train),
    )
    interrupted = False
    with closing(run.saver), proven_row_loss(model, corpus.train) as (row_loss, warning):
        if warning is not None:
            yield warning
        run.room.watch(row_loss)
        try:
            if corpus.validation and resume_from is None:
                yield from run.validate(row_loss)
            model.train()
            while progress.step < schedule.total_steps and not run.is_out_of_patience and not interrupted:
                trouble = yield from run.take_step(row_loss)
                yield from run.tell_saved(wait=False)
                if trouble is None and corpus.validation and schedule.validates_at(progress.step):
                    trouble = yield from run.validate(row_loss)
                interrupted = stop_requested() and progress.step < schedule.total_steps
                if trouble is None and (interrupted or run.saves_now):
                    trouble = yield from run.save(leaving=interrupted)
                if trouble is not None:
                    yield from run.tell_saved()
                    yield from run.recovery.go_back(trouble)
        except PhinetuneError:
            yield from run.tell_saved()
            raise
        yield from run.tell_saved()
    model.eval()
    if not interrupted:
        yield from run.keep()
    yield Finished(
        step=progress.step,
        epochs=progress.step / schedule.steps_per_epoch,
        stopped="interrupted" if interrupted else "early_stopping" if run.is_out_of_patience else "finished",
        kept_step=run.kept_step,
        best_step=progress.best_step or progress.step,
        best_eval_loss=progress.best_eval_loss,
        seconds=progress.seconds,
        tokens=progress.tokens,
    )


def _start(
    model: PeftModel,
    corpus: Corpus,
    settings: TrainSettings,
    checkpoints: Checkpoints,
    pairs_per_row: int,
    resume_from: int | None,
) -> tuple[RunParts, Warned | None]:
    order = StepOrder(len(corpus.train), settings.examples_per_step, settings.seed)
    parameters = [parameter for _, parameter in lora.trainable(model)]
    optimizer = make_optimizer(parameters, settings.weight_decay)
    schedule = plan(settings, order.steps_per_epoch)
    progress = Progress(loss_scale=LossScale.for_dtype(model.get_base_model().dtype).value)
    resumed = checkpoints.resume(resume_from, model, optimizer) if resume_from is not None else None
    if resumed is not None:
        progress = resumed.progress
    room = Room(model, corpus.train, corpus.validation, progress, pairs_per_row)
    run = RunParts(
        model=model,
        train=corpus.train,
        validation=corpus.validation,
        settings=settings,
        saver=Saver(checkpoints, has_time_beside(parameters[0].device)),
        order=order,
        schedule=schedule,
        parameters=parameters,
        optimizer=optimizer,
        progress=progress,
        room=room,
        recovery=Recovery(model, optimizer, checkpoints, progress, room, resumed.best if resumed is not None else {}),
    )
    return run, resumed.warning if resumed is not None else None
