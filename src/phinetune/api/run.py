"""A training run as a value: where it is and how it went."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from phinetune.artifacts.diagnosis import Diagnosis
from phinetune.events import StopReason
from phinetune.run_folder import RunFolder, open_finished


@dataclass(frozen=True)
class Run:
    """A training run and its figures. Losses are nats per answer token; None is not measured.

    `eval_loss` is that of `kept_step`, whose state is the model. Of `own_asked` training questions it answers
    `own_right_kept` word for word, the state of the last step `own_right_last`. Having read `endings_asked` held-out
    answers, it would stop after `endings_known`.
    """

    folder: RunFolder
    steps: int
    epochs: float
    train_loss: float | None
    eval_loss: float | None
    first_eval_loss: float | None
    kept_step: int
    best_step: int
    stopped: StopReason
    seconds: float
    real_tokens_per_s: float | None
    peak_memory_gb: float | None
    trainable_parameters: int
    skipped_steps: int = 0  # computed and not taken
    rollbacks: int = 0  # returns to an earlier state
    own_asked: int | None = None
    own_right_kept: int | None = None
    own_right_last: int | None = None
    endings_asked: int | None = None
    endings_known: int | None = None
    diagnosis: tuple[Diagnosis, ...] = ()  # worst first

    def to_json(self) -> dict[str, Any]:
        values = asdict(self)
        del values["folder"]
        return {"out": str(self.folder.root), **values}


def folder_with_figures(run: Run | str | Path) -> RunFolder:
    """The folder of a run that has figures to look at, also when it failed or was interrupted.

    Raises RunError when there is none.
    """
    root = run.folder.root if isinstance(run, Run) else Path(run)
    folder = RunFolder(root)
    return folder if folder.metrics_json.is_file() else open_finished(root)
