"""`report()`: one page that explains a run to the person whose sheet it was."""

from __future__ import annotations

from pathlib import Path

from phinetune.api.diagnose import diagnosis_of
from phinetune.api.run import Run, folder_with_figures
from phinetune.artifacts.report import write_report
from phinetune.run_folder import RunFolder, damage_in_records, locked


def report(run: Run | str | Path) -> Path:
    """Write training_visuals/report.html from the run folder alone, and return its place.

    Raises RunError when there is no run with figures, one of its files is damaged, or a training is writing there.
    """
    folder = folder_with_figures(run)
    with locked(folder):
        return report_on(folder)


def report_on(folder: RunFolder) -> Path:
    """The same for a folder that is known to be a run, also one that was interrupted."""
    # Without figures there is nothing to diagnose, and the report says which file is missing.
    diagnosis = diagnosis_of(folder) if folder.metrics_json.is_file() else ()
    with damage_in_records(folder):
        return write_report(folder, diagnosis)
