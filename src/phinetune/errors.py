"""Every error that a person can cause or mend. Raised anywhere, caught once: in `phinetune.cli`."""

from __future__ import annotations

import difflib
from pathlib import Path


class PhinetuneError(Exception):
    """What is wrong and where (`message`), and what to do next (`hint`)."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class SheetError(PhinetuneError):
    """The spreadsheet cannot be used as it is."""


class SettingsError(PhinetuneError):
    """A setting is unknown or out of range; the message lists every problem at once."""


class ModelError(PhinetuneError):
    """The base model or adapter is missing, foreign, damaged or out of reach."""


class RunError(PhinetuneError):
    """A run folder, checkpoint or output file is missing, damaged or in the way."""


class TrainingError(PhinetuneError):
    """Training cannot go on: not finite, or it does not fit."""


class DoesNotFitError(TrainingError):
    """The device has no memory for it."""


def neighbour(path: Path) -> str | None:
    """The name in the folder of `path` that it may be a misspelling of, its last ending left aside."""
    try:
        by_stem = {entry.stem: entry.name for entry in sorted(path.parent.iterdir(), reverse=True)}
        alike = {entry.stem: entry.name for entry in path.parent.iterdir() if entry.suffix == path.suffix}
    except OSError:
        return None
    near = difflib.get_close_matches(path.stem, by_stem | alike, n=1, cutoff=0.7)
    return (by_stem | alike)[near[0]] if near else None
