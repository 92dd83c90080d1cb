"""Whole runs of a toy, from its sheet to its model, as `phinetune.train` makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import phinetune
from phinetune.api.run import Run
from phinetune.events import Event, StepDone, Warned

ADAPTER = "adapter_model.safetensors"


def train(sheet: Path, base: Path, out: Path, **options: Any) -> Run:
    return phinetune.train(sheet, model=str(base), out=out, **{"epochs": 2, "lr": 1e-2} | options)


def train_by_fours(
    sheet: Path, base: Path | str, out: Path, *, stop_after: int | None = None, **options: Any
) -> tuple[Run, list[Event]]:
    """A run of 14 steps of four pairs, and its events; broken off after so many steps when asked."""
    events: list[Event] = []

    def stop() -> bool:
        return stop_after is not None and sum(isinstance(e, StepDone) for e in events) >= stop_after

    options = {"epochs": 2, "lr": 1e-2, "batch_size": 2, "grad_accum": 2} | options
    run = phinetune.train(sheet, model=str(base), out=out, on_event=events.append, stop_requested=stop, **options)
    return run, events


def weights(root: Path) -> bytes:
    return (root / "model" / ADAPTER).read_bytes()


def codes(events: list[Event]) -> list[str]:
    return [event.code for event in events if isinstance(event, Warned)]
