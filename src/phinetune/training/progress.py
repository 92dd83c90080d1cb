"""How far a run has come, and the same as JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from phinetune.events import Event, RolledBack, Saved, StepDone, StepSkipped, Validated, Warned

WENT_BACK = "rolled_back"  # the code of the warning that says so

_RECORDED: dict[str, TypeAdapter[Any]] = {
    kind.__name__: TypeAdapter(kind) for kind in (StepDone, StepSkipped, Validated, Saved, RolledBack, Warned)
}


@dataclass
class Progress:
    """How far a run has come. The history is the events so far: a resume replays them to whoever listens.

    `pairs_per_row`, `validation_row`, `without_graphs` and `recompute` are set where what was planned did not fit (see
    room.py); `rollbacks` and `learning_rate_factor` count the returns to an earlier state (see recovery.py).
    """

    step: int = 0
    best_step: int = 0
    best_eval_loss: float | None = None
    validations_without_best: int = 0
    loss_scale: float = 1.0
    loss_scale_good_steps: int = 0
    pairs_per_row: int | None = None
    validation_row: int | None = None
    without_graphs: bool = False
    recompute: bool = False
    rollbacks: int = 0
    learning_rate_factor: float = 1.0
    history: list[Event] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        timed = StepDone | StepSkipped | Validated | RolledBack
        return sum(event.seconds for event in self.history if isinstance(event, timed))

    @property
    def tokens(self) -> int:
        return sum(event.tokens for event in self.history if isinstance(event, StepDone | StepSkipped))

    @property
    def measured(self) -> dict[int, float]:
        """The held-out loss of every step that was validated, the untrained model's left out."""
        return {event.step: event.eval_loss for event in self.history if isinstance(event, Validated) and event.step}

    @property
    def returns(self) -> list[Event]:
        """What was said of going back to an earlier state."""
        return [e for e in self.history if isinstance(e, RolledBack) or (isinstance(e, Warned) and e.code == WENT_BACK)]

    def learn_from(self, later: Progress) -> None:
        """Take over what a later state knows and this one, gone back to, must not forget: what fits in memory, how
        often the run went back, and at which share of the learning rate it goes on.
        """
        self.pairs_per_row, self.validation_row = later.pairs_per_row, later.validation_row
        self.without_graphs, self.recompute = later.without_graphs, later.recompute
        self.rollbacks, self.learning_rate_factor = later.rollbacks, later.learning_rate_factor
        self.history += [event for event in later.returns if event not in self.history]


def to_json(progress: Progress) -> dict[str, Any]:
    plain = {f.name: getattr(progress, f.name) for f in dataclasses.fields(progress)}
    return plain | {"history": [[type(event).__name__, dataclasses.asdict(event)] for event in progress.history]}


def from_json(plain: Any) -> Progress:
    """Raises ValueError that names the first thing wrong: another type, no history, an unknown event."""
    try:
        progress: Progress = _read(_PROGRESS, plain | {"history": []})
        progress.history = [_read(_RECORDED[kind], values) for kind, values in plain["history"]]
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}") from None
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"no history of a run: {error}") from None
    return progress


def _read(kind: TypeAdapter[Any], plain: dict[str, Any]) -> Any:
    return kind.validate_json(json.dumps(plain), strict=True)


_PROGRESS: TypeAdapter[Progress] = TypeAdapter(Progress)
