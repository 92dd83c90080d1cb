"""A written form of a tuned model, held against its adapter before anybody is told that it is there."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from phinetune.api.ask import TunedModel, is_merged
from phinetune.api.run import Run
from phinetune.errors import ModelError
from phinetune.run_folder import RunFolder, find_model
from phinetune.sheet.kept import kept_pairs
from phinetune.tokens.encode import Example
from phinetune.use.agreement import judge, mean_loss, probes

_MOST_PAIRS = 64  # held-out ones that a written form is measured with


@dataclass(frozen=True)
class Exported:
    """A written form of a tuned model. Losses are nats per token of `measured_on`: the answers held out in training, or
    the model's own greedy answers to a few questions where the run kept none; None where they were not measured.
    """

    path: Path
    kind: str
    megabytes: float
    adapter_loss: float | None
    loss: float | None
    measured_on: str


def measure(tuned: TunedModel, run: Run | str | Path) -> tuple[list[Example], float, str]:
    """What every form is measured with, the adapter's loss on it, and what it is."""
    model = find_model(run.folder.root if isinstance(run, Run) else run)
    kept = kept_pairs(RunFolder(model.resolve().parent).pairs)
    if kept is not None and kept.validation:
        examples, what = tuned.encoder.examples(kept.validation[:_MOST_PAIRS]), "held-out pairs"
    else:
        examples, what = probes(tuned.model, tuned.encoder), "the model's own answers"
    return examples, mean_loss(tuned.model, examples), what


def refuse_if_wrong(exported: Exported, measured_in: torch.dtype) -> None:
    """Raises ModelError when a form says something else than the adapter.

    `measured_in` is the number format that the adapter's loss was computed in: it rounds too.
    """
    if exported.adapter_loss is None:
        return
    if judge(exported.kind, exported.loss, exported.adapter_loss, measured_in).kept is not False:
        return
    raise ModelError(
        f"The exported model in {exported.kind} does not say what the adapter says: the loss on "
        f"{exported.measured_on} is {exported.loss:.3f} instead of {exported.adapter_loss:.3f}. "
        "What was written is removed.",
        "This is a fault of phinetune or of the base model's files, not of yours. Try --dtype fp32 or another kind.",
    )


def hub_name(source: Path) -> str | None:
    """What the adapter in the folder `source` names as its base, where that is a name on the hub: a place on this
    machine is nobody's business, and goes into no file that is passed on. None for a merged model.
    """
    if is_merged(source):
        return None
    name = str(json.loads((source / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"])
    return name if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not Path(name).exists() else None


def megabytes(path: Path) -> float:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6
