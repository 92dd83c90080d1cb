"""A run is a folder, and this is the only place that knows its paths.

    out/
      model/                    adapter, tokenizer, model card: all that asking needs
      checkpoints/checkpoint-N/ everything a resume needs; pairs.jsonl, the pairs of both parts
      training_visuals/         pictures and figures

Whatever is written here appears whole or not at all: files and folders are made under a temporary name beside
their place, flushed to the disk, and renamed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from phinetune.errors import RunError

RECIPE = "phinetune.json"
_TEMPORARY = ".partial-"


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run, whether or not it exists yet."""

    root: Path

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

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

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"checkpoint-{step}"

    def checkpoint_steps(self) -> list[int]:
        """Steps that have a checkpoint folder, oldest first (complete by construction, not yet verified)."""
        if not self.checkpoints.is_dir():
            return []
        found = (re.fullmatch(r"checkpoint-(\d+)", entry.name) for entry in self.checkpoints.iterdir())
        return sorted(int(match[1]) for match in found if match)

    @property
    def is_finished(self) -> bool:
        return self.recipe.is_file()

    @property
    def is_interrupted(self) -> bool:
        """Whether there are checkpoints newer than the model: a run writes its model last."""
        if not (steps := self.checkpoint_steps()):
            return False
        newest = self.checkpoint(steps[-1]).stat().st_mtime
        return not self.is_finished or newest > self.recipe.stat().st_mtime


def find_model(path: str | Path) -> Path:
    """The tuned model at `path`: in the run folder there, or the model folder itself, whatever it is called.

    Raises RunError when there is no tuned model.
    """
    path = Path(path)
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


def open_finished(path: str | Path) -> RunFolder:
    """The finished run at `path`: the run folder itself, or its `model` folder. Raises RunError as `find_model`."""
    model = find_model(path)
    return RunFolder(model.resolve().parent if model == Path(path) else Path(path))


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all.

    Raises RunError when the disk is full or the folder cannot be written.
    """
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_bytes(path: Path, data: bytes) -> None:
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it becomes `path` when the block ends without an error."""
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_TEMPORARY, suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` to fill; it becomes `path` when the block ends without an error.

    A folder already at `path` is replaced as a whole.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=path.parent))
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        for file in temporary.rglob("*"):
            _flush(file)
        _flush(temporary)
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=path.parent)) / path.name
            path.replace(old)
            try:
                temporary.replace(path)
            except OSError:
                old.replace(path)
                raise
            finally:
                shutil.rmtree(old.parent, ignore_errors=True)
        else:
            temporary.replace(path)
        _flush(path.parent)
    except (OSError, SafetensorError) as error:
        raise _cannot_write(path, error) from error
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left half-written in `folder`."""
    if folder.is_dir():
        for entry in folder.glob(f"{_TEMPORARY}*"):
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    if os.name == "nt":  # Windows flushes neither folders nor files opened for reading
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _cannot_write(path: Path, error: Exception) -> RunError:
    return RunError(
        f"{path} could not be written: {getattr(error, 'strerror', None) or error}.",
        "Free some disk space or choose another folder with --out. Nothing half-written was left behind.",
    )
