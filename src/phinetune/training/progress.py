"""How far a run has come, and the same as JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from phinetune.events import Event, Saved, StepDone, Validated, Warned

_RECORDED: dict[str, TypeAdapter[Any]] = {
    kind.__name__: TypeAdapter(kind) for kind in (StepDone, Validated, Saved, Warned)
}


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

    @property
    def measured(self) -> dict[int, float]:
        """The held-out loss of every step that was validated, the untrained model's left out."""
        return {event.step: event.eval_loss for event in self.history if isinstance(event, Validated) and event.step}


def to_json(progress: Progress) -> dict[str, Any]:
    plain = {f.name: getattr(progress, f.name) for f in dataclasses.fields(progress)}
    return plain | {"history": [[type(event).__name__, dataclasses.asdict(event)] for event in progress.history]}


def from_json(plain: Any) -> Progress:
    """Raises ValueError that names the first thing wrong: another type, an unknown field or event."""
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
