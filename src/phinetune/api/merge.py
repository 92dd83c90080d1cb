"""`merge()`: the tuned model as one ordinary folder, read back and measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from phinetune.api.ask import is_merged, open_exactly
from phinetune.api.read_back import Exported, hub_name, measure, megabytes, refuse_if_wrong
from phinetune.api.run import Run
from phinetune.artifacts.card_parts import Asking
from phinetune.artifacts.merge import Companions, write_merged
from phinetune.artifacts.merged_card import MergedFacts, merged_card
from phinetune.errors import RunError, SettingsError
from phinetune.model.device import DTYPES, dtype_name, pick_device, pick_dtype
from phinetune.model.folder import read_json
from phinetune.model.load import find, known_license, load_base
from phinetune.model.merge import merged_tensors
from phinetune.recipe import Recipe, read_recipe
from phinetune.run_folder import RECIPE, find_model, require_own, together
from phinetune.tokens.prompt import PromptTemplate
from phinetune.use.agreement import mean_loss


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
    machine computes models in. `model` is where the base model is now, if it has moved. Raises RunError when `to` is
    there already or the disk is too small, and ModelError when the merged model does not say what the adapter says.
    """
    folder = Path(to)
    if dtype not in ("auto", *DTYPES):
        raise SettingsError(f"There is no number format called {dtype}.", "Choose auto, bf16, fp16 or fp32.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} is there already.", "Choose another place with --to, or remove it first.")
    source = find_model(run.folder.root if isinstance(run, Run) else run)
    if is_merged(source):
        raise RunError(f"{source} is a merged model already.", "Copy the folder, or give the run it was merged from.")
    tuned = open_exactly(run, model, allow_bin)
    base = tuned.model.get_base_model()
    wanted = number_format(find(model or read_recipe(source).base_model), dtype)
    files = [file for file in sorted(source.iterdir()) if _goes_along(file)]
    for file in files:
        require_own(file, source)
    examples, adapter_loss, on = measure(tuned, run)
    recipe = replace(read_recipe(source), base_model=str(folder.resolve()))
    card = merged_card(_card_facts(source, recipe, dtype_name(wanted), adapter_loss, on))
    beside = Companions(recipe, files, tuned.encoder.chat_template(), card)
    with together() as written:
        written.append(folder)
        write_merged(
            folder,
            merged_tensors(tuned.model),
            type(base).__name__,
            base.config,
            base.generation_config,
            beside,
            wanted,
            lambda done, total: on_progress("merging", done, total),
        )
        measured_in = base.dtype
        del base, tuned  # one model in memory at a time
        merged = load_base(str(folder), measured_in, pick_device("cpu")).model  # fp16 is too short to compute in
        kind = dtype_name(wanted)
        exported = Exported(folder, kind, megabytes(folder), adapter_loss, mean_loss(merged, examples), on)
        refuse_if_wrong(exported, measured_in)
    return exported


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
