"""The paths of a run.

out/
  model/                    adapter, tokenizer, model card: all that asking needs
  checkpoints/checkpoint-N/ everything a resume needs; pairs.jsonl, the pairs of both parts; rollback.json, when the
                            run went back to an earlier checkpoint
  training_visuals/         pictures and figures
  model.before/             the model that stood here, while a run with --overwrite is not finished
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from phinetune.errors import RunError

RECIPE = "phinetune.json"


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run, whether or not it exists yet."""

    root: Path

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def model_before(self) -> Path:
        """Where a run with --overwrite puts the model that it replaces, until its own is written."""
        return self.root / "model.before"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def lock(self) -> Path:
        """Held by the process that writes here."""
        return self.checkpoints / ".lock"

    @property
    def visuals(self) -> Path:
        return self.root / "training_visuals"

    @property
    def recipe(self) -> Path:
        """What `ask` needs besides the weights: base model, template, sampling settings."""
        return self.model / RECIPE

    @property
    def pairs(self) -> Path:
        """What was trained on and what was held out. Not in the model folder: that is passed on."""
        return self.checkpoints / "pairs.jsonl"

    @property
    def rollback_json(self) -> Path:
        """That the run went back to an earlier checkpoint, until the next one that knows it."""
        return self.checkpoints / "rollback.json"

    @property
    def metrics_csv(self) -> Path:
        return self.visuals / "training_metrics.csv"

    @property
    def metrics_json(self) -> Path:
        return self.visuals / "training_metrics.json"

    @property
    def config_json(self) -> Path:
        return self.visuals / "training_config.json"

    @property
    def curves_png(self) -> Path:
        return self.visuals / "training_curves.png"

    @property
    def comparison_png(self) -> Path:
        return self.visuals / "loss_comparison.png"

    @property
    def findings_json(self) -> Path:
        """What was taken from the sheet, and what stood out in it."""
        return self.visuals / "data_findings.json"

    @property
    def report_html(self) -> Path:
        return self.visuals / "report.html"

    @property
    def answers_json(self) -> Path:
        """Base and tuned model side by side, every figure and answer."""
        return self.visuals / "comparison.json"

    @property
    def answers_xlsx(self) -> Path:
        return self.visuals / "comparison.xlsx"

    @property
    def answers_png(self) -> Path:
        return self.visuals / "comparison.png"

    @property
    def tells_of_the_sheet(self) -> tuple[Path, ...]:
        """Files among the pictures that quote questions and answers: they are not handed on unasked."""
        return (self.answers_json, self.answers_xlsx, self.findings_json, self.report_html)

    @property
    def figures(self) -> tuple[Path, ...]:
        """Everything that a run and its comparison leave in `visuals`."""
        pictures = (self.curves_png, self.comparison_png, self.answers_png)
        return (self.metrics_csv, self.metrics_json, self.config_json, *pictures, *self.tells_of_the_sheet)

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"checkpoint-{step}"

    def checkpoint_steps(self) -> list[int]:
        """Steps that have a checkpoint folder, oldest first (complete by construction, not yet verified)."""
        try:
            names = [entry.name for entry in self.checkpoints.iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        found = (re.fullmatch(r"checkpoint-(\d+)", name) for name in names)
        return sorted(int(match[1]) for match in found if match)

    @property
    def is_finished(self) -> bool:
        return self.recipe.is_file()

    @property
    def is_interrupted(self) -> bool:
        """Whether there are checkpoints and no model: a run puts an earlier one aside first and writes its own last."""
        return bool(self.checkpoint_steps()) and not self.is_finished


def require_own(path: Path, root: Path) -> None:
    """Raises RunError for a link to a folder, or to a file out of `root`: what lies there is no part of the run."""
    if (path.is_symlink() and path.is_dir()) or not path.resolve().is_relative_to(root.resolve()):
        raise RunError(
            f"{path} does not belong to this run: it is a link to {path.resolve()}.",
            "Put a copy in its place, or remove it, and try again.",
        )


def find_model(path: str | Path) -> Path:
    """The tuned model at `path`: in the run folder there, or the model folder itself, whatever it is called.

    Raises RunError when there is no tuned model.
    """
    path = Path(path)
    if path.is_file():
        raise _no_folder(path)
    for folder in (RunFolder(path).model, path):
        if (folder / RECIPE).is_file():
            return folder
    if not path.exists():
        raise RunError(f"There is no folder {path}.", "Name the folder that `phinetune train` wrote to (its --out).")
    if RunFolder(path).checkpoint_steps():
        raise RunError(
            f"The training run in {path} is not finished: it has checkpoints but no model yet.",
            "Run the same `phinetune train …` command again with --resume.",
        )
    raise RunError(
        f"There is no tuned model in {path}.",
        "Train one first: phinetune train dataset.xlsx",
    )


def _no_folder(path: Path) -> RunError:
    if path.suffix.lower() == ".gguf":
        return RunError(
            f"{path} is a model packed as .gguf: what it learned cannot be taken out of it again.",
            "Name the run that it was written from. ask, chat and serve take the file itself.",
        )
    return RunError(f"{path} is a file.", "Name the folder that `phinetune train` wrote to (its --out).")


def open_finished(path: str | Path) -> RunFolder:
    """The finished run at `path`: the run folder itself, or its `model` folder.

    Raises RunError as `find_model`, and for a model that stands outside a run.
    """
    model = find_model(path)
    folder = RunFolder(model.resolve().parent if model == Path(path) else Path(path))
    if not folder.is_finished:
        raise RunError(
            f"{path} is a model without the run it comes from.",
            "Name the folder that `phinetune train` wrote to (its --out), with checkpoints and pictures in it.",
        )
    return folder
