"""Checkpoints: everything that a resume needs, and nothing pickled.

checkpoint-50/
  adapter_config.json, adapter_model.safetensors   loadable by PEFT as they are
  optimizer.safetensors                            AdamW moments by parameter name
  state.json                                       the step, the best so far, the history, the settings
  checksums.json                                   SHA-256 of the files above
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from phinetune.errors import RunError
from phinetune.events import Event, Saved, StepDone, Validated, Warned
from phinetune.model import lora
from phinetune.run_folder import RunFolder, atomic_folder, remove_leftovers

_OPTIMIZER, _STATE, _CHECKSUMS = "optimizer.safetensors", "state.json", "checksums.json"
_RECORDED: dict[str, type[Event]] = {kind.__name__: kind for kind in (StepDone, Validated, Saved, Warned)}


@dataclass
class Progress:
    """How far a run has come. The history is the events so far: a resume replays them to whoever listens."""

    step: int = 0
    best_step: int = 0
    best_eval_loss: float | None = None
    validations_without_best: int = 0
    loss_scale: float = 1.0
    loss_scale_good_steps: int = 0
    history: list[Event] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return sum(event.seconds for event in self.history if isinstance(event, StepDone | Validated))

    @property
    def tokens(self) -> int:
        return sum(event.tokens for event in self.history if isinstance(event, StepDone))


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run. `fingerprint` is what a resume must share with the run that wrote them."""

    folder: RunFolder
    fingerprint: dict[str, Any]
    keep: int

    def save(self, model: PeftModel, optimizer: torch.optim.Optimizer, progress: Progress) -> Path:
        """Write checkpoint-N whole or not at all, then drop those that are no longer wanted."""
        path = self.folder.checkpoint(progress.step)
        with atomic_folder(path) as temporary:
            lora.save(model, temporary)
            save_file(_moments(model, optimizer), temporary / _OPTIMIZER)
            (temporary / _STATE).write_text(
                json.dumps({"progress": _to_json(progress), "run": self.fingerprint}, indent=1, allow_nan=False)
            )
            sums = {file.name: _sha256(file) for file in sorted(temporary.iterdir())}
            (temporary / _CHECKSUMS).write_text(json.dumps(sums, indent=1))
        self._drop_old(progress.best_step)
        return path

    def latest(self) -> int | None:
        """The step of the newest checkpoint whose checksums hold."""
        steps = reversed(self.folder.checkpoint_steps())
        return next((step for step in steps if is_intact(self.folder.checkpoint(step))), None)

    def resume(self, step: int, model: PeftModel, optimizer: torch.optim.Optimizer) -> Progress:
        """Put the checkpoint's weights and moments in place and return how far it had come.

        Raises RunError when the checkpoint belongs to a run with another sheet, model or setting.
        """
        path = self.folder.checkpoint(step)
        stored = json.loads((path / _STATE).read_text())
        if changed := _changes(stored["run"], self.fingerprint):
            raise RunError(
                "The run cannot go on, because it was started differently:\n  " + "\n  ".join(changed),
                "Use the same sheet and settings as before, or start a new run in another folder with --out.",
            )
        lora.load_weights(model, path)
        _restore_moments(model, optimizer, load_file(path / _OPTIMIZER))
        return _from_json(stored["progress"])

    def history(self, step: int) -> list[Event]:
        """The events of the run up to a checkpoint, to be replayed to whoever listens."""
        stored = json.loads((self.folder.checkpoint(step) / _STATE).read_text())
        return _from_json(stored["progress"]).history

    def load_weights(self, step: int, model: PeftModel) -> None:
        lora.load_weights(model, self.folder.checkpoint(step))

    def clear(self) -> None:
        """Remove all checkpoints: a new run begins."""
        remove_leftovers(self.folder.checkpoints)
        for step in self.folder.checkpoint_steps():
            shutil.rmtree(self.folder.checkpoint(step))

    def _drop_old(self, best_step: int) -> None:
        others = [step for step in self.folder.checkpoint_steps() if step != best_step]
        for step in others[: -self.keep]:
            shutil.rmtree(self.folder.checkpoint(step))


def is_intact(path: Path) -> bool:
    """Whether every file of the checkpoint is there and unchanged since it was written."""
    try:
        sums = json.loads((path / _CHECKSUMS).read_text())
        return all(_sha256(path / name) == checksum for name, checksum in sums.items())
    except (OSError, ValueError, AttributeError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _moments(model: PeftModel, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{name}/{key}": value.detach().cpu().contiguous()
        for name, parameter in lora.trainable(model)
        for key, value in optimizer.state[parameter].items()
    }


def _restore_moments(model: PeftModel, optimizer: torch.optim.Optimizer, moments: dict[str, torch.Tensor]) -> None:
    for name, parameter in lora.trainable(model):
        for key in ("step", "exp_avg", "exp_avg_sq"):
            value = moments[f"{name}/{key}"]
            optimizer.state[parameter][key] = value.to(parameter.device)


def _changes(before: dict[str, Any], now: dict[str, Any]) -> Sequence[str]:
    names = sorted(before.keys() | now.keys())
    return [
        f"{name}: {before.get(name)} before, {now.get(name)} now" for name in names if before.get(name) != now.get(name)
    ]


def _to_json(progress: Progress) -> dict[str, Any]:
    plain = {f.name: getattr(progress, f.name) for f in dataclasses.fields(progress)}
    return plain | {"history": [[type(event).__name__, dataclasses.asdict(event)] for event in progress.history]}


def _from_json(plain: dict[str, Any]) -> Progress:
    return Progress(**plain | {"history": [_RECORDED[kind](**values) for kind, values in plain["history"]]})
