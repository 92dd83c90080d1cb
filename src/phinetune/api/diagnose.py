"""`diagnose()`: what the figures of a run mean, and what to change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from phinetune.api.run import Run, folder_with_figures
from phinetune.artifacts.comparison import read_comparison
from phinetune.artifacts.diagnosis import Diagnosis, diagnose_folder
from phinetune.run_folder import RunFolder, damage_in_records
from phinetune.sheet.findings import Pair
from phinetune.sheet.kept import kept_pairs
from phinetune.sheet.near_duplicates import near_duplicates


def diagnose(run: Run | str | Path) -> list[Diagnosis]:
    """What a run shows, worst first, from its folder alone; with how its answers end, once `compare` asked.

    Raises RunError when there is no run with figures, or one of its files is damaged.
    """
    return diagnosis_of(folder_with_figures(run))


def diagnosis_of(folder: RunFolder) -> list[Diagnosis]:
    """The same for a folder that is known to be a run, also one that was interrupted."""
    parts = kept_pairs(folder.pairs)
    with damage_in_records(folder):
        compared = _current_comparison(folder)
        return diagnose_folder(
            folder,
            in_both_parts=in_both_parts(parts.train, parts.validation) if parts else None,
            asked=compared["count"] if compared else None,
            ended=round(compared["tuned"]["stopped_by_itself"] * compared["count"]) if compared else None,
        )


def in_both_parts(train: Sequence[Pair], held_out: Sequence[Pair]) -> int:
    """How many held-out pairs ask what a training pair asks, in the same or nearly the same words."""
    groups = near_duplicates([*train, *held_out])
    counts = (sum(place >= len(train) for place in group) for group in groups if group[0] < len(train))
    return sum(counts)


def _current_comparison(folder: RunFolder) -> dict[str, Any] | None:
    """The comparison, unless the figures are newer: then it was made with an earlier model."""
    if not folder.answers_json.is_file() or not folder.metrics_json.is_file():
        return None
    if folder.answers_json.stat().st_mtime < folder.metrics_json.stat().st_mtime:
        return None
    return read_comparison(folder)
