"""`merge()`: the tuned model as one ordinary folder, read back and measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from phinetune.api.ask import is_merged
from phinetune.api.read_back import Exported, held_against, hub_name, measure, tuned_weights
from phinetune.api.run import Run
from phinetune.artifacts.card_parts import Asking
from phinetune.artifacts.merge import Companions, write_merged
from phinetune.artifacts.merged_card import MergedFacts, merged_card
from phinetune.errors import RunError, SettingsError
from phinetune.model.device import DTYPES, dtype_name, pick_dtype
from phinetune.model.folder import read_json
from phinetune.model.load import find, known_license
from phinetune.recipe import Recipe, read_recipe
from phinetune.run_folder import RECIPE, find_model, require_own, together
from phinetune.tokens.encode import Encoder
from phinetune.tokens.prompt import PromptTemplate


def merge(
    run: Run | str | Path,
    to: str | Path = "merged",
    *,
    model: str | None = None,
    dtype: str = "auto",
    allow_bin: bool = False,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Exported:
    """Write the tuned model to the folder `to` as an ordinary one that plain transformers loads without an adapter.

    `dtype` is bf16, fp16 or fp32; auto is that of the base model's files, and of a packed .gguf file the one that this
    machine computes models in. `model` is where the base model is now, if it has moved. The weights are read, merged
    and written some rows at a time, and read back one at a time; no more of the model is in memory. Raises RunError
    when `to` is there already or the disk is too small, and ModelError when the merged model does not say what the
    adapter says.
    """
    folder = Path(to)
    if dtype not in ("auto", *DTYPES):
        raise SettingsError(f"There is no number format called {dtype}.", "Choose auto, bf16, fp16 or fp32.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} is there already.", "Choose another place with --to, or remove it first.")
    source = find_model(run.folder.root if isinstance(run, Run) else run)
    if is_merged(source):
        raise RunError(f"{source} is a merged model already.", "Copy the folder, or give the run it was merged from.")
    recipe = read_recipe(source)
    wanted = number_format(find(model or recipe.base_model), dtype)
    files = [file for file in sorted(source.iterdir()) if _goes_along(file)]
    for file in files:
        require_own(file, source)
    measured = measure(run, model, allow_bin)
    stored = tuned_weights(run, model, allow_bin)
    prompts = Encoder(stored.tokenizer, PromptTemplate(recipe.template), recipe.max_length).chat_template()
    recipe = replace(recipe, base_model=str(folder.resolve()))
    card = merged_card(_card_facts(source, recipe, dtype_name(wanted), measured.loss, measured.on))
    with together() as written:
        written.append(folder)
        write_merged(
            folder,
            stored.tensors,
            type(stored.model).__name__,
            stored.config,
            stored.model.generation_config,
            Companions(recipe, files, prompts, card),
            wanted,
            lambda done, total: on_progress("merging", done, total),
        )
        del stored  # where it is a model in memory
        return held_against(folder, dtype_name(wanted), measured)


def number_format(base: Path, wanted: str) -> torch.dtype:
    """What the merged weights are written in, with `auto` as the folder or file of the base model decides."""
    if wanted == "auto" and base.is_dir():
        config = read_json(base / "config.json")
        stored = str(config.get("dtype") or config.get("torch_dtype")).removeprefix("torch.")
        wanted = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}.get(stored, "auto")
    return pick_dtype(torch.device("cpu"), wanted)


def _goes_along(file: Path) -> bool:
    """The tokenizer goes into a merged folder; the adapter does not, nor what says that there is one."""
    return file.is_file() and not file.name.startswith("adapter_") and file.name not in (RECIPE, "README.md")


def _card_facts(source: Path, recipe: Recipe, dtype: str, adapter_loss: float, measured_on: str) -> MergedFacts:
    base, template = hub_name(source), PromptTemplate(recipe.template)
    return MergedFacts(
        hub_model=base,
        base_license=known_license(base or ""),
        dtype=dtype,
        adapter_loss=adapter_loss,
        measured_on=measured_on,
        asking=Asking(
            prompt=template.prompt("{question}"),
            completion=template.completion("{answer}"),
            temperature=recipe.temperature,
            top_p=recipe.top_p,
            max_new_tokens=recipe.max_new_tokens,
        ),
    )
