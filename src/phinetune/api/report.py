"""`report()`: one page that explains a run to the person whose sheet it was."""

from __future__ import annotations

from pathlib import Path

from phinetune.api.diagnose import diagnosis_of
from phinetune.api.run import Run, folder_with_figures
from phinetune.artifacts.report import write_report
from phinetune.run_folder import RunFolder


def report(run: Run | str | Path) -> Path:
    """Write training_visuals/report.html from the run folder alone, and return its place.

    Raises RunError when there is no run with figures, or one of its files is damaged.
    """
    return report_on(folder_with_figures(run))


def report_on(folder: RunFolder) -> Path:
    """The same for a folder that is known to be a run, also one that was interrupted."""
    # Without figures there is nothing to diagnose, and the report says which file is missing.
    return write_report(folder, diagnosis_of(folder) if folder.metrics_json.is_file() else ())
