"""Training events -> rows of figures, the CSV that keeps them, and the summary of a run.

    step,epoch,train_loss,eval_loss,learning_rate,grad_norm,tokens,seconds
    0,0.0,,2.82,,,0,0.0                                  the base model, measured before training
    1,0.036,4.18,,2e-06,1.3,1021,7.4                     one row an optimizer step
    28,1.0,2.61,2.55,5.6e-05,0.7,988,7.5                 a validated step fills eval_loss too
    31,1.1,,,,,1004,7.4                                  a skipped step: computed, but no rate was applied

`tokens` and `seconds` are those of the row's own step, as in `StepDone`: sums over rows are totals of the run, also
when it was resumed. Losses are nats per answer token. When a run goes back to a checkpoint, the rows after it go.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import TypedDict

from phinetune.errors import RunError
from phinetune.events import (
    Endings,
    Event,
    Finished,
    Recalled,
    RolledBack,
    Saved,
    StepDone,
    StepSkipped,
    StopReason,
    Validated,
)
from phinetune.run_folder import RunFolder, write_text


@dataclass(frozen=True)
class MetricsRow:
    """One optimizer step; or one validation without a step, with no train figures and 0 tokens and seconds.

    A skipped step has tokens and no learning rate; its loss and gradient norm are there where they were numbers.
    """

    step: int
    epoch: float
    train_loss: float | None
    eval_loss: float | None
    learning_rate: float | None
    grad_norm: float | None
    tokens: int
    seconds: float

    @property
    def was_skipped(self) -> bool:
        return self.learning_rate is None and self.tokens > 0


COLUMNS = tuple(field.name for field in fields(MetricsRow))


class MetricsLog:
    """Gathers the rows of a run and keeps its CSV up to date.

    The file is written, whole, at every validation, checkpoint and at the end; not at every step.
    """

    def __init__(self, folder: RunFolder, rows: Iterable[MetricsRow] = ()) -> None:
        self._path = folder.metrics_csv
        self._rows = {row.step: row for row in rows}
        self._rollbacks: list[RolledBack] = []
        self.recalled: list[Recalled] = []  # by the last state, then by the one that was kept if it is another
        self.endings: Endings | None = None

    @property
    def rows(self) -> list[MetricsRow]:
        return [self._rows[step] for step in sorted(self._rows)]

    def replay(self, events: Iterable[Event]) -> None:
        """Take in what happened before a resume; nothing is written."""
        for event in events:
            self._take(event)

    @property
    def rollbacks(self) -> int:
        """How often the run went back to an earlier state."""
        return len(self._rollbacks)

    def consume(self, event: Event) -> None:
        """Take an event in, and write at every validation, checkpoint and at the end."""
        self._take(event)
        if isinstance(event, Validated | Saved | RolledBack | Finished):
            self.write()

    def _take(self, event: Event) -> None:
        match event:
            case StepDone():
                self._rows[event.step] = MetricsRow(
                    step=event.step,
                    epoch=event.epoch,
                    train_loss=_finite(event.train_loss),
                    eval_loss=None,
                    learning_rate=event.learning_rate,
                    grad_norm=_finite(event.grad_norm),
                    tokens=event.tokens,
                    seconds=event.seconds,
                )
            case StepSkipped():
                self._rows[event.step] = MetricsRow(
                    step=event.step,
                    epoch=event.epoch,
                    train_loss=event.train_loss,
                    eval_loss=None,
                    learning_rate=None,
                    grad_norm=event.grad_norm,
                    tokens=event.tokens,
                    seconds=event.seconds,
                )
            case RolledBack():
                self._rollbacks.append(event)
                self._rows = {step: row for step, row in self._rows.items() if step <= event.to_step}
            case Recalled():
                self.recalled.append(event)
            case Endings():
                self.endings = event
            case Validated():
                alone = MetricsRow(event.step, event.epoch, None, None, None, None, 0, 0.0)
                row = self._rows.get(event.step, alone)
                self._rows[event.step] = replace(row, eval_loss=_finite(event.eval_loss))
            case _:
                pass

    def write(self) -> None:
        """Write the CSV, whole or not at all. Raises RunError when the disk does not take it."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(astuple(row) for row in self.rows)
        write_text(self._path, text.getvalue())


def read_metrics(path: Path) -> list[MetricsRow]:
    """The rows of a metrics CSV, in order of their steps.

    Raises RunError that names the line when the file is missing or is not what `MetricsLog` writes.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise RunError(
            f"There are no training figures: {path} is missing.",
            "They appear at the first validation or checkpoint of a training run.",
        ) from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}.", "Check the file's permissions.") from None
    except UnicodeDecodeError:
        raise _damaged(f"{path} is not text") from None
    if not lines or tuple(lines[0].split(",")) != COLUMNS:
        raise _damaged(f"{path} does not begin with the line {','.join(COLUMNS)}")
    rows: list[MetricsRow] = []
    for number, cells in enumerate(csv.reader(lines[1:]), start=2):
        row = _row([cell or None for cell in cells], f"{path}, line {number}")
        if rows and row.step <= rows[-1].step:
            raise _damaged(f"{path}, line {number}: step {row.step} comes after step {rows[-1].step}")
        rows.append(row)
    return rows


def validations(rows: Sequence[MetricsRow]) -> list[tuple[int, float]]:
    """Step and loss of every validation."""
    return [(row.step, row.eval_loss) for row in rows if row.eval_loss is not None]


def best_validation(rows: Sequence[MetricsRow]) -> tuple[int, float] | None:
    """Step and loss of the lowest validation after training began, the earliest of equals."""
    return min((v for v in validations(rows) if v[0] > 0), key=lambda v: v[1], default=None)


class Summary(TypedDict):
    """What `training_metrics.json` holds. Losses in nats per answer token; None is not measured."""

    final_train_loss: float | None
    first_eval_step: int | None  # 0: the base model, before training
    first_eval_loss: float | None
    final_eval_loss: float | None
    best_eval_loss: float | None
    best_step: int | None
    best_perplexity: float | None
    kept_step: int | None  # the one that became the model
    kept_eval_loss: float | None
    own_asked: int | None  # training questions, for the two below
    own_right_kept: int | None  # answered word for word by the model
    own_right_last: int | None  # and by the state of the last step
    endings_asked: int | None  # held-out answers read whole, for the one below
    endings_known: int | None  # after which the model would stop
    steps: int
    epochs: float
    seconds: float
    tokens: int
    real_tokens_per_s: float | None
    peak_memory_gb: float | None
    trainable_parameters: int
    total_parameters: int
    train_pairs: int
    validation_pairs: int
    answers_cut: int  # of both parts, longer than max_length
    skipped_steps: int  # computed and not taken: no numbers, or a spike
    rollbacks: int  # how often the run went back to an earlier state, at half the learning rate
    stopped: StopReason


def summary(
    rows: Sequence[MetricsRow],
    *,
    trainable_parameters: int,
    total_parameters: int,
    train_pairs: int,
    validation_pairs: int,
    answers_cut: int = 0,
    rollbacks: int = 0,
    kept_step: int | None = None,
    recalled: Sequence[Recalled] = (),
    endings: Endings | None = None,
    stopped: StopReason,
    seconds: float,
    peak_memory_gb: float | None = None,
) -> Summary:
    """The run in one value.

    `final_train_loss` is the mean over the last epoch's worth of steps, weighted by their tokens: a single step is
    too noisy to report. `seconds` is the time of the whole run; `real_tokens_per_s` is measured over the optimizer
    steps alone. `best_perplexity` is exp(best_eval_loss). `recalled` are those of the last state and of the kept one.
    """
    measured = validations(rows)
    best = best_validation(rows)
    in_steps = sum(row.seconds for row in rows)
    tokens = sum(row.tokens for row in rows)
    return Summary(
        final_train_loss=_last_epoch_loss(rows),
        first_eval_step=measured[0][0] if measured else None,
        first_eval_loss=measured[0][1] if measured else None,
        final_eval_loss=measured[-1][1] if measured else None,
        best_eval_loss=best[1] if best else None,
        best_step=best[0] if best else None,
        best_perplexity=math.exp(best[1]) if best else None,
        kept_step=kept_step,
        kept_eval_loss=dict(measured).get(kept_step) if kept_step is not None else None,
        own_asked=recalled[-1].asked if recalled else None,
        own_right_kept=recalled[-1].right if recalled else None,
        own_right_last=recalled[0].right if recalled else None,
        endings_asked=endings.asked if endings else None,
        endings_known=endings.known if endings else None,
        steps=rows[-1].step if rows else 0,
        epochs=rows[-1].epoch if rows else 0.0,
        seconds=seconds,
        tokens=tokens,
        real_tokens_per_s=tokens / in_steps if in_steps > 0 else None,
        peak_memory_gb=peak_memory_gb,
        trainable_parameters=trainable_parameters,
        total_parameters=total_parameters,
        train_pairs=train_pairs,
        validation_pairs=validation_pairs,
        answers_cut=answers_cut,
        skipped_steps=sum(row.was_skipped for row in rows),
        rollbacks=rollbacks,
        stopped=stopped,
    )


def _last_epoch_loss(rows: Sequence[MetricsRow]) -> float | None:
    taken = [row for row in rows if not row.was_skipped]
    trained = [(row.epoch, row.train_loss, row.tokens) for row in taken if row.train_loss is not None]
    if not trained:
        return None
    start = trained[-1][0] - 1 + 1e-9  # epochs are quotients: 5.0 - 1 must not take in the step at 4.0
    last = [(loss, tokens) for epoch, loss, tokens in trained if epoch > start]
    return sum(loss * tokens for loss, tokens in last) / sum(tokens for _, tokens in last)


def _finite(value: float) -> float | None:
    # JSON has no word for what is no number; an empty cell does.
    return value if math.isfinite(value) else None


def _row(values: Sequence[float | str | None], where: str) -> MetricsRow:
    if len(values) != len(COLUMNS):
        raise _damaged(f"{where}: {len(values)} values where {len(COLUMNS)} belong")
    cells = dict(zip(COLUMNS, values, strict=True))

    def number(name: str, read: Callable[[float | str], float]) -> float:
        value = cells[name]
        try:
            if value is not None and math.isfinite(found := read(value)):
                return found
        except (TypeError, ValueError):
            pass
        raise _damaged(f"{where}: {name} is {'empty' if value is None else repr(value)}") from None

    def optional(name: str) -> float | None:
        return None if cells[name] is None else number(name, float)

    return MetricsRow(
        step=int(number("step", int)),
        epoch=number("epoch", float),
        train_loss=optional("train_loss"),
        eval_loss=optional("eval_loss"),
        learning_rate=optional("learning_rate"),
        grad_norm=optional("grad_norm"),
        tokens=int(number("tokens", int)),
        seconds=number("seconds", float),
    )


def _damaged(what: str) -> RunError:
    return RunError(
        f"The training figures are damaged: {what}.",
        "Move the file away to go on without the earlier figures; the tuned model does not need them.",
    )
