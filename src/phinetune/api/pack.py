"""`pack()`: model and pictures in one file to take along."""

from __future__ import annotations

from pathlib import Path

from phinetune.api.run import Run
from phinetune.artifacts import pack as archive
from phinetune.run_folder import open_finished


def pack(run: Run | str | Path, to: str | Path = "fine_tuned_model.zip") -> Path:
    """Write the run's model and training_visuals to a zip file and return its path."""
    folder = run.folder if isinstance(run, Run) else open_finished(run)
    return archive.pack(folder, Path(to))
