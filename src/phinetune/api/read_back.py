"""The weights of a tuned model on their way into a form of it, and that form held against the adapter.

Neither the one nor the other has the model in memory: weights are read from the disk one at a time, for the loss too.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from phinetune.api.ask import TunedModel, is_merged, open_exactly
from phinetune.api.run import Run
from phinetune.errors import ModelError
from phinetune.model.device import pick_device
from phinetune.model.load import find, load_base
from phinetune.model.merge import merged_tensors
from phinetune.model.stored import StoredModel, stored_model
from phinetune.model.streamed import streamed_model
from phinetune.recipe import read_recipe
from phinetune.run_folder import RunFolder, find_model
from phinetune.sheet.kept import kept_pairs
from phinetune.tokens.encode import Encoder, Example
from phinetune.tokens.prompt import PromptTemplate
from phinetune.use.agreement import general_examples, judge, mean_loss

_MOST_PAIRS = 64  # held-out ones that a written form is measured with


@dataclass(frozen=True)
class Exported:
    """A written form of a tuned model. Losses are nats per token of `measured_on`: the answers held out in training, or
    a few paragraphs of general text where the run kept none; None where they were not measured.
    """

    path: Path
    kind: str
    megabytes: float
    adapter_loss: float | None
    loss: float | None
    measured_on: str


@dataclass(frozen=True)
class Measured:
    """The adapter's loss on the examples that every form is measured with, and the number format it was computed in."""

    examples: list[Example]
    loss: float
    on: str
    computed_in: torch.dtype


def measure(run: Run | str | Path, model: str | None, allow_bin: bool) -> Measured:
    """The loss of the tuned model itself, with its adapter beside the base model's weights."""
    source = find_model(run.folder.root if isinstance(run, Run) else run)
    tuned = _open_lean(run, source, model, allow_bin)
    kept = kept_pairs(RunFolder(source.resolve().parent).pairs)
    if kept is not None and kept.validation:
        examples, what = tuned.encoder.examples(kept.validation[:_MOST_PAIRS]), "held-out pairs"
    else:
        examples, what = general_examples(tuned.encoder), "general text"
    computed_in = next(tuned.model.parameters()).dtype
    return Measured(examples, mean_loss(tuned.model, examples), what, computed_in)


def _open_lean(run: Run | str | Path, source: Path, model: str | None, allow_bin: bool) -> TunedModel:
    """The tuned model in fp32 with its weights left on the disk, or where its files do not allow that, loaded whole."""
    recipe = read_recipe(source)
    merged = is_merged(source)
    whole = source if merged else find(model or recipe.base_model)
    streamed = streamed_model(whole, None if merged else source, allow_bin=allow_bin)
    if streamed is None:
        return open_exactly(run, model, allow_bin)
    encoder = Encoder(streamed.tokenizer, PromptTemplate(recipe.template), recipe.max_length)
    return TunedModel(streamed.model, encoder, recipe.generate())


def held_against(path: Path, kind: str, measured: Measured) -> Exported:
    """The form in the folder or file `path`, read back from there and measured.

    Raises ModelError when it says something else than the adapter.
    """
    read = streamed_model(path, None) or load_base(str(path), measured.computed_in, pick_device("cpu"))
    loss = mean_loss(read.model, measured.examples)
    tokens = sum(example.answer_tokens for example in measured.examples)
    if judge(kind, loss, measured.loss, measured.computed_in, tokens).kept is False:
        raise ModelError(
            f"The exported model in {kind} does not say what the adapter says: the loss on {measured.on} is {loss:.3f} "
            f"instead of {measured.loss:.3f}. What was written is removed.",
            "This is a fault of phinetune or of the base model's files, not of yours. "
            "Try --dtype fp32 or another kind.",
        )
    return Exported(path, kind, megabytes(path), measured.loss, loss, measured.on)


def tuned_weights(run: Run | str | Path, model: str | None, allow_bin: bool) -> StoredModel:
    """The weights of the tuned model, merged, to be read one at a time; where its files do not allow that, loaded."""
    source = find_model(run.folder.root if isinstance(run, Run) else run)
    merged = is_merged(source)
    whole = source if merged else find(model or read_recipe(source).base_model)
    stored = stored_model(whole, None if merged else source, allow_bin=allow_bin)
    if stored is not None:
        return stored
    tuned = open_exactly(run, model, allow_bin)
    base = tuned.model.get_base_model() if tuned.has_base else tuned.model
    return StoredModel(base, tuned.encoder.tokenizer, list(merged_tensors(tuned.model)))


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
