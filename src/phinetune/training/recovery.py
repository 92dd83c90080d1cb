"""When the numbers go wrong: which steps are not taken, when the run goes back, and where to.

    loss, gradient norm ─► fine                  the step is taken
                        └► no numbers, a spike   the step is skipped: weights and moments stay as they were
    3 skipped in a row, or 6 of 20     ┐
    held-out loss that is no number    ├─► back to the last good checkpoint at half the learning rate,
    weights that are no numbers        ┘   twice at most ─► TrainingError

Going back is on the disk (rollback.py) before the run goes on, so that twice is twice however often it is killed.

Leaving out the batch behind a spike is what large runs do: PaLM went back a hundred steps and left out the batches
around it (Chowdhery et al., 2022, section 5.1); OLMo-core leaves out a step whose loss or gradient norm lies six
standard deviations above the last 128. Here runs are short, steps are small and an unusual pair is no fault, so both
have to stand out, by deviations that one odd step does not move, and the loss has to undo half of what was won.
Everything is decided from the run's history, and so in the same way again when a checkpoint is resumed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from statistics import median

import torch
from peft import PeftModel

from phinetune.errors import DoesNotFitError, RunError, TrainingError
from phinetune.events import Event, RolledBack, SkipReason, StepDone, StepSkipped, Validated, Warned
from phinetune.model import lora
from phinetune.training.checkpoint import Checkpoints, Resumed, damage
from phinetune.training.progress import WENT_BACK, Progress
from phinetune.training.rollback import write_rollback
from phinetune.training.room import Room

_WINDOW = 64  # steps to compare with; OLMo's 128 are a whole run here
_LEVEL = 12  # of them, the latest, tell where the loss is
_FEWEST = 20  # fewer steps do not tell what is usual
_DEVIATIONS = 4
_LOSS_TIMES, _NORM_TIMES = 2, 3  # and so many times the median, where all steps are alike
_UNDOES = 0.5  # and so much of what the loss has fallen since the first step
_IN_A_ROW = 3
_RECENT, _OF_RECENT = 20, 6
_ROLLBACKS = 2
_DEVIATION_OF_NORMAL = 1.4826  # of the median absolute deviation: the standard deviation where noise is normal


def reason_to_skip(history: Sequence[Event], train_loss: float, grad_norm: float) -> SkipReason | None:
    """Why a step with these figures must not be taken; None when it may."""
    if not (math.isfinite(train_loss) and math.isfinite(grad_norm)):
        return "not_finite"
    recent = list(islice((event for event in reversed(history) if isinstance(event, StepDone)), _WINDOW))
    if len(recent) < _FEWEST:
        return None
    losses, norms = [event.train_loss for event in recent], [event.grad_norm for event in recent]
    level = median(losses[:_LEVEL])
    fallen = next(event for event in history if isinstance(event, StepDone)).train_loss - level
    if (
        train_loss - level > _UNDOES * fallen
        and _stands_out(train_loss, losses, _LOSS_TIMES)
        and _stands_out(grad_norm, norms, _NORM_TIMES)
    ):
        return "spike"
    return None


def _stands_out(value: float, recent: Sequence[float], times: float) -> bool:
    """Whether it lies far above the others, the latest of which come first.

    By ratios, because losses shrink and their noise with them; the noise by what changes from one step to the next,
    because over a whole window a loss falls.
    """
    logs = [math.log(max(each, 1e-30)) for each in recent]
    changes = median(abs(later - earlier) for later, earlier in pairwise(logs))
    deviation = _DEVIATION_OF_NORMAL * changes / math.sqrt(2)
    return math.log(max(value, 1e-30)) - median(logs[:_LEVEL]) > max(_DEVIATIONS * deviation, math.log(times))


def trouble_with_steps(history: Sequence[Event]) -> str | None:
    """Whether leaving out steps does not help, in words: several in a row, or many of the last ones.

    Counted since the run last went back.
    """
    skipped = [isinstance(event, StepSkipped) for event in islice(_steps_since_rollback(history), _RECENT)]
    if len(skipped) >= _IN_A_ROW and all(skipped[:_IN_A_ROW]):
        return f"{_IN_A_ROW} steps in a row could not be taken"
    if (count := sum(skipped)) >= _OF_RECENT:
        return f"{count} of the last {len(skipped)} steps could not be taken"
    return None


def was_skipped(history: Sequence[Event]) -> bool:
    """Whether the latest step was skipped."""
    return isinstance(next(_steps_since_rollback(history), None), StepSkipped)


def _steps_since_rollback(history: Sequence[Event]) -> Iterator[Event]:
    """Steps taken and skipped, the latest first."""
    for event in reversed(history):
        if isinstance(event, RolledBack):
            return
        if isinstance(event, StepDone | StepSkipped):
            yield event


def weights_are_finite(model: PeftModel) -> bool:
    # One answer from the device, however many tensors.
    return bool(torch.stack([torch.isfinite(parameter).all() for _, parameter in lora.trainable(model)]).all())


class Recovery:
    """Takes a run back to where it was sound. `progress` is changed in place.

    The best adapter so far stays in memory, so that the end of a run needs no file of long ago; where there is no
    memory for it, its checkpoint has it. `best` is that of a resume.
    """

    def __init__(
        self,
        model: PeftModel,
        optimizer: torch.optim.Optimizer,
        checkpoints: Checkpoints,
        progress: Progress,
        room: Room,
        best: dict[str, torch.Tensor],
    ) -> None:
        self._model, self._optimizer, self._checkpoints, self._progress = model, optimizer, checkpoints, progress
        self._room = room
        self._best = best
        # Until there is a checkpoint, the way back leads to the beginning; the copy is let go with the first one.
        self._start = lora.copy_weights(model) if progress.step == 0 else None
        self._start_scale = progress.loss_scale

    def checkpoint_saved(self) -> None:
        self._start = None

    def keep_best(self) -> None:
        """The adapter as it is now is the best so far."""
        try:
            self._best = self._room.for_copy("keep the best adapter", lambda: lora.copy_weights(self._model))
        except DoesNotFitError:
            self._best = {}

    def best_weights(self) -> dict[str, torch.Tensor]:
        """Raises RunError when they are neither in memory nor whole on the disk."""
        if self._best:
            return self._best
        step = self._progress.best_step
        path = self._checkpoints.folder.checkpoint(step)
        if wrong := damage(path):
            raise RunError(
                f"The best state, of step {step}, is lost: there was no memory to keep it, and of {path} {wrong}.",
                "Training is done: the same command with --resume and --keep last makes the last state the model.",
            )
        return self._room.for_copy(f"read checkpoint-{step}", lambda: lora.read_weights(path))

    def go_back(self, trouble: str) -> list[Event]:
        """Put the last sound state in place and return what is to be said; it is in the history already.

        Raises TrainingError when the run has gone back twice, or there is nothing left to go back to.
        """
        progress = self._progress
        if progress.rollbacks == _ROLLBACKS:
            raise self._gives_up(f"{trouble}, after going back {_times(_ROLLBACKS)} already")
        unsaved, notes = self._save_beginning()
        step = 0 if unsaved is not None else self._where_to()
        if step is None:
            raise self._gives_up(f"{trouble}, and no checkpoint is left to go back to")
        earlier = unsaved.progress if unsaved is not None else self._checkpoints.state(step).progress
        earlier.learn_from(progress)
        rollback = Progress(step=step)
        rollback.learn_from(progress)
        rollback.rollbacks, rollback.learning_rate_factor = progress.rollbacks + 1, progress.learning_rate_factor / 2
        left, spent = progress.step, progress.seconds - earlier.seconds
        rollback.history += [
            RolledBack(left, step, rollback.learning_rate_factor, spent),
            Warned(WENT_BACK, _told(trouble, left, rollback)),
        ]
        notes += self._note(rollback)
        resumed = unsaved or self._load(step, rollback)
        resumed.progress.learn_from(rollback)
        progress.__dict__.update(resumed.progress.__dict__)
        self._best = resumed.best
        notes += [resumed.warning] if resumed.warning is not None else []
        progress.history += notes
        return [*rollback.history[-2:], *notes]

    def _where_to(self) -> int | None:
        """The step of the newest checkpoint; of the best one where the newest was gone back to before."""
        latest, _ = self._checkpoints.newest_good()
        best, before = self._progress.best_step, self._progress.returns
        last = next((event.to_step for event in reversed(before) if isinstance(event, RolledBack)), None)
        if latest is not None and latest == last and 0 < best < latest:
            return best if damage(self._checkpoints.folder.checkpoint(best)) is None else latest
        return latest

    def _save_beginning(self) -> tuple[Resumed | None, list[Warned]]:
        """Where there is no checkpoint yet, the beginning becomes one. It is given back where it could not be saved."""
        if self._start is None or self._checkpoints.newest_good()[0] is not None:
            return None, []
        lora.put_weights(self._model, self._start)
        for _, parameter in lora.trainable(self._model):
            for value in self._optimizer.state[parameter].values():
                value.zero_()
        measured: list[Event] = [e for e in self._progress.history if isinstance(e, Validated) and e.step == 0]
        beginning = Progress(loss_scale=self._start_scale, history=measured)
        try:
            self._room.for_copy(
                "save the beginning", lambda: self._checkpoints.save(self._model, self._optimizer, beginning)
            )
        except (RunError, DoesNotFitError) as error:
            said = f"{error.message} Training goes on; until a checkpoint is saved, a resume begins anew."
            return Resumed(beginning, {}, None), [Warned("checkpoint_failed", said)]
        self.checkpoint_saved()
        return None, []

    def _note(self, rollback: Progress) -> list[Warned]:
        """Put it on the disk. A run whose disk does not take it goes on all the same."""
        try:
            write_rollback(self._checkpoints.folder, rollback)
        except RunError as error:
            said = f"{error.message} Until the next checkpoint is saved, a resume does not know that the run went back."
            return [Warned("rollback_not_noted", said)]
        return []

    def _load(self, step: int, rollback: Progress) -> Resumed:
        return self._room.for_copy(
            f"go back to checkpoint-{step}",
            lambda: self._checkpoints.resume(step, self._model, self._optimizer, rollback),
        )

    def _gives_up(self, trouble: str) -> TrainingError:
        progress = self._progress
        best, (latest, _) = progress.best_step, self._checkpoints.newest_good()
        kept = "Nothing was saved yet."
        if best and damage(self._checkpoints.folder.checkpoint(best)) is None:
            kept = f"The best state, of step {best}, is kept in checkpoints/checkpoint-{best}."
        elif latest is not None:
            kept = f"The last sound state is kept in checkpoints/checkpoint-{latest}."
        rows = sorted({row for event in progress.history if isinstance(event, StepSkipped) for row in event.rows})
        look = f" Rows of the skipped steps: {_listed(rows)}; look at them with phinetune check." if rows else ""
        less = _share(progress.learning_rate_factor / 2)
        return TrainingError(
            f"Training became unstable: {trouble}. {kept}",
            f"Begin anew in another folder (--out) with --lr at {less} of its value, or with --dtype fp32 if it was "
            f"fp16.{look} `phinetune report` on this folder shows the curves.",
        )


def _told(trouble: str, left: int, rollback: Progress) -> str:
    where = f"to checkpoint-{rollback.step}" if rollback.step else "to its beginning"
    share, more = _share(rollback.learning_rate_factor), _ROLLBACKS - rollback.rollbacks
    return (
        f"{trouble[0].upper()}{trouble[1:]}. The run goes back from step {left} {where}, and on at {share} of the "
        "learning rate. " + (f"It can do so {_times(more)} more." if more else "It will not do so again.")
    )


def _listed(rows: Sequence[int]) -> str:
    return ", ".join(map(str, rows[:12])) + (" …" if len(rows) > 12 else "")


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _share(factor: float) -> str:
    return {0.5: "half", 0.25: "a quarter", 0.125: "an eighth"}.get(factor, f"{factor:g} times")
