"""What training reports: one stream of small frozen values that the terminal, the metrics files and any
tracker consume. Training knows none of them.

    SheetRead -> ModelLoading -> ModelLoaded -> Started
              -> (StepDone | StepSkipped | Validated | Saved | RolledBack | Warned)*
              -> Recalled* -> Endings? -> Finished
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

StopReason = Literal["finished", "early_stopping", "interrupted", "failed"]
SkipReason = Literal["not_finite", "spike"]


@dataclass(frozen=True)
class SheetRead:
    """The pairs were found and divided."""

    file: str
    sheets: str
    question_column: str
    answer_column: str
    ignored_columns: tuple[str, ...]
    pairs: int
    skipped: int
    train_pairs: int
    validation_pairs: int


@dataclass(frozen=True)
class ModelLoading:
    """The base model is about to be loaded, and downloaded first if it is not on this machine."""

    model: str


@dataclass(frozen=True)
class ModelLoaded:
    """The base model is in memory with a fresh adapter. `notes` say what was chosen for the person, and why."""

    model: str
    device: str
    dtype: str
    target_modules: tuple[str, ...]
    trainable_parameters: int
    total_parameters: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Started:
    """Training is about to take its first step (`step` > 0 when it goes on from a checkpoint)."""

    step: int
    total_steps: int
    steps_per_epoch: int
    examples_per_step: int
    warmup_steps: int
    train_tokens_per_epoch: int


@dataclass(frozen=True)
class StepDone:
    """One optimizer step. `train_loss` is the mean cross-entropy per answer token in nats."""

    step: int
    epoch: float
    train_loss: float
    learning_rate: float
    grad_norm: float
    tokens: int  # real tokens that went through the model in this step; there is no padding to count
    seconds: float


@dataclass(frozen=True)
class StepSkipped:
    """An optimizer step that was computed and not taken: weights and optimizer are as they were.

    `train_loss` and `grad_norm` are None where they were no numbers. `rows` are those of the sheet that it was about.
    """

    step: int
    epoch: float
    reason: SkipReason
    train_loss: float | None
    grad_norm: float | None
    tokens: int
    seconds: float
    rows: tuple[int, ...]


@dataclass(frozen=True)
class RolledBack:
    """The run went back from `step` to the state of `to_step`; what was reported of the steps between no longer holds.

    The learning rate is `learning_rate_factor` times the planned one from here on. `seconds` were spent on those steps.
    """

    step: int
    to_step: int
    learning_rate_factor: float
    seconds: float


@dataclass(frozen=True)
class Validated:
    """Loss over all validation pairs, per answer token in nats. Step 0 is the model before training."""

    step: int
    epoch: float
    eval_loss: float
    is_best: bool
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Saved:
    """A checkpoint is complete on disk. On a GPU steps that came after it may have been told before."""

    step: int
    path: str
    is_best: bool


@dataclass(frozen=True)
class Restored:
    """There was nothing newer in the run folder, so a checkpoint was copied back from the mirror."""

    step: int
    path: str


@dataclass(frozen=True)
class MirrorAwaited:
    """The run is done; the copy in the mirror is not yet."""

    path: str


@dataclass(frozen=True)
class Mirrored:
    """A verified copy of the checkpoint of `step` is in the mirror; `with_model`: of everything else too."""

    step: int
    path: str
    with_model: bool


@dataclass(frozen=True)
class Warned:
    """Something the person should know. `message` says what it means for them."""

    code: str
    message: str


@dataclass(frozen=True)
class Recalled:
    """The state of `step` gives back the answers of `right` of `asked` training pairs word for word."""

    step: int
    asked: int
    right: int


@dataclass(frozen=True)
class Endings:
    """Having read the whole answers of `asked` held-out pairs, the state of `step`, which is kept, would stop after
    `known` of them: end-of-text is the token that it thinks likeliest there."""

    step: int
    asked: int
    known: int


@dataclass(frozen=True)
class Finished:
    """The end of `fit()`; the adapter of `kept_step` is in the model when this is reported."""

    step: int
    epochs: float
    stopped: StopReason
    kept_step: int
    best_step: int
    best_eval_loss: float | None
    seconds: float
    tokens: int


Event = (
    SheetRead
    | Restored
    | ModelLoading
    | ModelLoaded
    | Started
    | StepDone
    | StepSkipped
    | Validated
    | Saved
    | RolledBack
    | MirrorAwaited
    | Mirrored
    | Warned
    | Recalled
    | Endings
    | Finished
)
