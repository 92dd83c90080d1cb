"""Checkpoints: everything that a resume needs, and nothing pickled.

checkpoint-50/
  adapter_config.json, adapter_model.safetensors   loadable by PEFT as they are
  optimizer.safetensors                            AdamW moments by parameter name
  state.json                                       the step, the best so far, the history, the settings
  checksums.json                                   SHA-256 of the files above
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from phinetune.errors import RunError
from phinetune.events import Event, Warned
from phinetune.model import lora
from phinetune.model.out_of_memory import is_out_of_memory
from phinetune.run_folder import RunFolder, atomic_folder, discard, sha256
from phinetune.training.progress import Progress, from_json, to_json
from phinetune.training.rollback import read_rollback
from phinetune.training.same_run import refuse_another_run

CHECKSUMS = "checksums.json"
_OPTIMIZER, _STATE = "optimizer.safetensors", "state.json"
_FILES = {"adapter_config.json", lora.WEIGHTS, _OPTIMIZER, _STATE}
_FORMAT = 2  # of state.json

Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True)
class State:
    """What state.json holds. `run` is the record of the run that wrote it; see `same_run`."""

    progress: Progress
    run: dict[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint is written from: weights and moments by name, and the text of state.json."""

    step: int
    best_step: int
    weights: dict[str, torch.Tensor]
    moments: dict[str, torch.Tensor]
    state: str

    @property
    def bytes(self) -> int:
        """What it takes on a disk, about."""
        return sum(each.nbytes for each in (*self.weights.values(), *self.moments.values()))


@dataclass(frozen=True)
class Resumed:
    """A run that goes on: how far it had come, and the best adapter so far, on the CPU."""

    progress: Progress
    best: dict[str, torch.Tensor]
    warning: Warned | None


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run. `run` is its record; `in_use` names steps that somebody else is reading just now."""

    folder: RunFolder
    run: dict[str, Any]
    keep: int
    in_use: Callable[[], Set[int]] = frozenset

    def save(self, model: PeftModel, optimizer: torch.optim.Optimizer, progress: Progress) -> Path:
        """Write checkpoint-N of the run as it is now; see `write`."""
        return self.write(model, self.snapshot(model, optimizer, progress, copy=False))

    def snapshot(
        self, model: PeftModel, optimizer: torch.optim.Optimizer, progress: Progress, *, copy: bool
    ) -> Snapshot:
        """The run as it is now: with `copy` it stays so, on the CPU, while training goes on."""
        weights = {name: parameter.detach() for name, parameter in lora.trainable(model)}
        moments = _moments(model, optimizer)
        state = {"format": _FORMAT, "progress": to_json(progress), "run": self.run}
        return Snapshot(
            step=progress.step,
            best_step=progress.best_step,
            weights=lora.copies(weights) if copy else weights,
            moments=lora.copies(moments) if copy else {name: each.cpu() for name, each in moments.items()},
            state=json.dumps(state, indent=1, allow_nan=False),
        )

    def write(self, model: PeftModel, snapshot: Snapshot) -> Path:
        """Write checkpoint-N whole or not at all, read it back, then drop those that are no longer wanted. Of the model
        only the adapter's configuration is read.

        Raises RunError when it cannot be written, or is not on the disk as it was written; the others are then kept.
        """
        path = self.folder.checkpoint(snapshot.step)
        with atomic_folder(path, lambda: snapshot.bytes) as temporary:
            lora.save(model, temporary, snapshot.weights)
            save_file(snapshot.moments, temporary / _OPTIMIZER)
            (temporary / _STATE).write_text(snapshot.state, encoding="utf-8")
            files = sorted(temporary.iterdir())
            sums = dict(zip([file.name for file in files], _at_once(sha256, files), strict=True))
            (temporary / CHECKSUMS).write_text(json.dumps(sums, indent=1), encoding="utf-8")
        if wrong := damage(path):
            discard(path)
            raise RunError(
                f"{path} was written, but what is on the disk is not what was written: {wrong}.",
                "The disk loses or changes data: train to another one with --out.",
            )
        self._drop_old(snapshot.best_step)
        return path

    def newest_good(self) -> tuple[int | None, dict[int, str]]:
        """The step of the newest checkpoint that is whole, and what is wrong with the newer ones, by step.

        Those that the run went back from are none of either; it may have been killed before they were removed.
        """
        wrong: dict[int, str] = {}
        rollback = self._rollback()
        for step in reversed(self.folder.checkpoint_steps()):
            path = self.folder.checkpoint(step)
            if (found := damage(path)) is not None:
                wrong[step] = found
            elif rollback is None or step <= rollback.step or not _knows_less(path, rollback):
                return step, wrong
        return None, wrong

    def what_is_safe(self) -> str:
        """For a person, what a run that fails here can be gone on from. It raises no error of its own."""
        try:
            step, _ = self.newest_good()
        except (OSError, MemoryError):
            step = next(reversed(self.folder.checkpoint_steps()), None)
        if step is None:
            return "No checkpoint was saved yet: the same command begins again."
        return f"checkpoint-{step} is safe: the same command with --resume goes on from it."

    def state(self, step: int) -> State:
        """What a whole checkpoint says.

        Raises RunError when it belongs to a run with another sheet or settings, or has become unreadable meanwhile.
        """
        with _reading(self.folder.checkpoint(step)):
            state = _read_state(self.folder.checkpoint(step))
        refuse_another_run(state.run, self.run, self.folder.root)
        rollback = self._rollback()
        if rollback is not None and step <= rollback.step and state.progress.rollbacks < rollback.rollbacks:
            state.progress.learn_from(rollback)
        return state

    def resume(
        self, step: int, model: PeftModel, optimizer: torch.optim.Optimizer, rollback: Progress | None = None
    ) -> Resumed:
        """Put the checkpoint's weights and moments in place and return how far it had come; with `rollback`, as a run
        that just went back there (rollback.py).

        Checkpoints of later steps are damaged, or gone back from, or another would be gone on from: they are removed.
        Raises as `state`.
        """
        progress = self.state(step).progress
        if rollback is not None:
            progress.learn_from(rollback)
        for later in self.folder.checkpoint_steps():
            if later > step:
                discard(self.folder.checkpoint(later))
        path = self.folder.checkpoint(step)
        lora.load_weights(model, path)
        with _reading(path):
            moments = load_file(path / _OPTIMIZER)
        _restore_moments(model, optimizer, moments, path)
        warning = self._choose_best(progress)
        self._drop_old(progress.best_step)  # the run may have been killed just before it would have done so
        best = lora.read_weights(self.folder.checkpoint(progress.best_step)) if progress.best_step else {}
        return Resumed(progress, best, warning)

    def history(self, step: int) -> list[Event]:
        """The events of the run up to a checkpoint, to be replayed to whoever listens."""
        return self.state(step).progress.history

    def rollback_damage(self) -> str | None:
        """What is wrong with the note that the run went back, in words; None where it can be read or there is none."""
        try:
            read_rollback(self.folder)
        except (OSError, ValueError, RecursionError) as error:
            return f"{getattr(error, 'strerror', None) or error}"[:200]
        return None

    def _rollback(self) -> Progress | None:
        try:
            return read_rollback(self.folder)
        except (OSError, ValueError, RecursionError):
            return None

    def _choose_best(self, progress: Progress) -> Warned | None:
        """Where the best checkpoint is lost, let the best of those that are left be the best."""
        lost = progress.best_step
        if not lost or damage(self.folder.checkpoint(lost)) is None:
            return None
        whole = {
            step: loss
            for step, loss in progress.measured.items()
            if step in self.folder.checkpoint_steps() and damage(self.folder.checkpoint(step)) is None
        }
        best = min(whole, key=lambda step: whole[step], default=0)
        progress.best_step, progress.best_eval_loss = best, whole.get(best)
        instead = f"the best that is left is that of step {best}" if best else "the best of the steps to come is kept"
        return Warned(
            "best_checkpoint_lost",
            f"checkpoint-{lost}, the best so far, is damaged or gone; {instead}.",
        )

    def _drop_old(self, best_step: int) -> None:
        spared = {best_step, *self.in_use()}
        others = [step for step in self.folder.checkpoint_steps() if step != best_step]
        for step in others[: -self.keep]:
            if step not in spared:
                discard(self.folder.checkpoint(step))


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, in words; None when every file is there and as it was written."""
    try:
        if not (path / CHECKSUMS).is_file():  # reading a pipe would never end
            return f"{CHECKSUMS} is missing"
        sums = json.loads((path / CHECKSUMS).read_text(encoding="utf-8"))
        if not isinstance(sums, dict) or not sums.keys() >= _FILES:
            return f"{CHECKSUMS} does not name its files"
    except (OSError, ValueError, RecursionError):
        return f"{CHECKSUMS} cannot be read"
    for said in _at_once(lambda name: _damage_to(path, name, sums[name]), list(sums)):
        if said is not None:
            return said
    try:
        _read_state(path)
    except OSError as error:  # it was there a moment ago
        return f"{_STATE} cannot be read: {error.strerror}"
    except (ValueError, RecursionError) as error:
        return str(error)[:200]
    return None


def _damage_to(path: Path, name: str, checksum: object) -> str | None:
    if Path(name).name != name:
        return f"{CHECKSUMS} names a file somewhere else"
    try:
        if not (path / name).is_file():
            return f"{name} is missing"
        if sha256(path / name) != checksum:
            return f"{name} is not as it was written"
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"
    return None


def _at_once(look: Callable[[Item], Found], items: Sequence[Item]) -> list[Found]:
    """Of each file, side by side: of Phi-2's 283 MB two thirds are in one. One by one where threads are refused."""
    try:
        with ThreadPoolExecutor() as pool:
            return list(pool.map(look, items))
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    return [look(item) for item in items]


def _knows_less(path: Path, rollback: Progress) -> bool:
    """Whether a whole checkpoint is of before the run went back."""
    try:
        return _read_state(path).progress.rollbacks < rollback.rollbacks
    except (OSError, ValueError, RecursionError):  # it was whole a moment ago
        return True


def best_step(path: Path) -> int | None:
    """The best step so far of a checkpoint, 0 before the first validation; None when the checkpoint cannot be read."""
    try:
        return _read_state(path).progress.best_step
    except (OSError, ValueError, RecursionError):
        return None


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """A checkpoint that was whole and no longer is, because somebody removes it just now, as a RunError."""
    try:
        yield
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise RunError(
            f"{path} cannot be read any more: {getattr(error, 'strerror', None) or error}.",
            "The same command with --resume goes on from the last checkpoint that is whole.",
        ) from error


def _read_state(path: Path) -> State:
    """Raises ValueError when it is not what this version writes."""
    stored = json.loads((path / _STATE).read_text(encoding="utf-8"))
    found = stored.get("format") if isinstance(stored, dict) else None
    if found != _FORMAT:
        raise ValueError(f"{_STATE} is of another version of phinetune (format {found}, this one reads {_FORMAT})")
    try:
        if not isinstance(stored.get("run"), dict):
            raise ValueError("no record of the run")
        return State(from_json(stored.get("progress")), stored["run"])
    except ValueError as error:
        raise ValueError(f"{_STATE} holds {error}") from None


def _moments(model: PeftModel, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{name}/{key}": value.detach()
        for name, parameter in lora.trainable(model)
        for key, value in optimizer.state[parameter].items()
    }


def _restore_moments(
    model: PeftModel, optimizer: torch.optim.Optimizer, moments: dict[str, torch.Tensor], path: Path
) -> None:
    """Raises RunError when the checkpoint holds those of other weights, which its checksums do not tell."""
    for name, parameter in lora.trainable(model):
        shapes = {"step": torch.Size(), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}
        for key, shape in shapes.items():
            value = moments.get(f"{name}/{key}")
            if value is None or value.shape != shape:
                raise RunError(
                    f"{path / _OPTIMIZER} does not fit the adapter beside it: {name}/{key} is not its own.",
                    "Somebody changed the checkpoint: remove it, and --resume goes on from the one before.",
                )
            optimizer.state[parameter][key] = value.to(parameter.device)
