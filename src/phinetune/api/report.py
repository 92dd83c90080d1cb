"""`report()`: one page that explains a run to the person whose sheet it was."""

from __future__ import annotations

from pathlib import Path

from phinetune.api.run import Run
from phinetune.artifacts.comparison import read_comparison
from phinetune.artifacts.diagnosis import Diagnosis, diagnose_folder
from phinetune.artifacts.report import write_report
from phinetune.run_folder import RunFolder, open_finished
from phinetune.sheet.clean import normalize_question
from phinetune.sheet.kept import kept_pairs


def report(run: Run | str | Path) -> Path:
    """Write training_visuals/report.html from the run folder alone, and return its place.

    Raises RunError when there is no finished run, or one of its files is damaged.
    """
    return report_on(open_finished(run.folder.root if isinstance(run, Run) else run))


def report_on(folder: RunFolder) -> Path:
    """The same for a folder that is known to be a run, also one that was interrupted."""
    return write_report(folder, diagnosis_of(folder))


def diagnosis_of(folder: RunFolder) -> list[Diagnosis]:
    """What a run shows, from its curves, its pairs, and the comparison if there is one; the worst first."""
    comparison, kept = read_comparison(folder), kept_pairs(folder.pairs)
    asked = comparison["count"] if comparison is not None else None
    ended = round(asked * comparison["tuned"]["stopped_by_itself"]) if comparison is not None and asked else None
    in_both = None
    if kept is not None:
        known = {normalize_question(pair.question) for pair in kept.train}
        in_both = sum(normalize_question(pair.question) in known for pair in kept.validation)
    return diagnose_folder(folder, in_both_parts=in_both, asked=asked, ended=ended)
