"""`export_gguf()` and `export_gguf_adapter()`: the tuned model as .gguf files, read back and measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedModel

from phinetune.api.ask import TunedModel, is_merged, open_exactly
from phinetune.api.read_back import Exported, hub_name, measure, megabytes, refuse_if_wrong
from phinetune.api.run import Run
from phinetune.artifacts.gguf import GgufFacts, file_bytes, write_gguf
from phinetune.artifacts.gguf_adapter import write_gguf_adapter
from phinetune.artifacts.merge import require_space
from phinetune.artifacts.modelfile import Use, how_to, modelfile
from phinetune.artifacts.quantize import check_kinds
from phinetune.errors import RunError, SettingsError
from phinetune.model.adapter_config import read_adapter_config
from phinetune.model.device import keep_freed_memory, pick_device
from phinetune.model.find_shape import KNOWN, find_shape
from phinetune.model.folder import damage_in
from phinetune.model.load import find, known_license, load_base
from phinetune.model.lora import read_weights
from phinetune.model.merge import merged_tensors
from phinetune.model.stored import StoredModel, stored_model
from phinetune.recipe import Recipe, read_recipe
from phinetune.run_folder import find_model, together, write_text
from phinetune.tokens.encode import Encoder
from phinetune.tokens.prompt import PromptTemplate
from phinetune.use.agreement import mean_loss

_ADAPTER_KINDS = ("f16", "f32")
_OLLAMA_CONTEXT = 4096  # Ollama reserves memory for all of it
OnProgress = Callable[[str, int, int], None]


def export_gguf(
    run: Run | str | Path,
    to: str | Path | None = None,
    *,
    quantize: str | Sequence[str] = "f16",
    model: str | None = None,
    allow_bin: bool = False,
    check: bool = True,
    on_progress: OnProgress = lambda *_: None,
) -> list[Exported]:
    """Write the tuned model as one .gguf file for each kind in `quantize` ("q8_0", "f16,q8_0" or a list), straight from
    the adapter.

    `to` is the file; with several kinds, or when left out, the kind is put before .gguf. Beside each stand a Modelfile
    for Ollama and a page with the commands. The weights are read, merged and packed one at a time; `check` then loads
    the model and every file to compare them, which needs the memory of one. Raises SettingsError for an unknown kind or
    none, ModelError for an architecture that cannot be written, an adapter of another model, or a file that does not
    say what the adapter says, RunError when a file is there already or the disk is too small. Then no file is left.
    """
    kinds = check_kinds(quantize)
    paths = [_gguf_path(Path(to) if to is not None else None, kind, len(kinds)) for kind in kinds]
    for path in paths:
        if path.exists():
            raise RunError(f"{path} is there already.", "Choose another name with --to, or remove it first.")
    source = find_model(run.folder.root if isinstance(run, Run) else run)
    recipe = read_recipe(source)
    whole = source if is_merged(source) else find(model or recipe.base_model)
    stored = stored_model(whole, None if is_merged(source) else source, allow_bin=allow_bin)
    if stored is None:
        tuned = open_exactly(run, model, allow_bin)
        tensors = list(merged_tensors(tuned.model))
        stored = StoredModel(_whole(tuned).config, tuned.encoder.tokenizer, tensors)
        del tuned
    encoder = Encoder(stored.tokenizer, PromptTemplate(recipe.template), recipe.max_length)
    facts = replace(_facts(recipe, source), chat_template=encoder.chat_template())
    require_space(paths[0], sum(file_bytes(kind, stored.tensors, stored.config) for kind in kinds))
    keep_freed_memory()  # every weight takes buffers of the same sizes
    with together() as written:
        for kind, path in zip(kinds, paths, strict=True):
            written.append(path)
            write_gguf(
                path,
                kind,
                stored.tensors,
                stored.config,
                stored.tokenizer,
                facts,
                lambda done, total, kind=kind: on_progress(kind, done, total),  # type: ignore[misc]
            )
            written += _companions(path)
            _write_companions(path, recipe, stored.tokenizer, stored.config.max_position_embeddings)
        if check:
            del stored
            return _read_back(run, model, allow_bin, kinds, paths)
    return [Exported(path, kind, megabytes(path), None, None, "") for kind, path in zip(kinds, paths, strict=True)]


def _read_back(
    run: Run | str | Path, model: str | None, allow_bin: bool, kinds: Sequence[str], paths: Sequence[Path]
) -> list[Exported]:
    """Every file as llama.cpp would compute it, beside the adapter; one model in memory at a time."""
    tuned = open_exactly(run, model, allow_bin)
    examples, adapter_loss, on = measure(tuned, run)
    compute = _whole(tuned).dtype
    del tuned
    written = []
    for kind, path in zip(kinds, paths, strict=True):
        read_back = load_base(str(path), compute, pick_device("cpu")).model
        written.append(Exported(path, kind, megabytes(path), adapter_loss, mean_loss(read_back, examples), on))
        del read_back
        refuse_if_wrong(written[-1], compute)
    return written


def export_gguf_adapter(
    run: Run | str | Path,
    to: str | Path = "lora.gguf",
    *,
    kind: str = "f16",
    model: str | None = None,
    allow_bin: bool = False,
) -> Path:
    """Write the adapter alone, in f16 or f32, for llama.cpp's --lora beside the .gguf base model that is there already.

    Of the base model only its configuration is looked at: no weights are read, and none are fetched. A Modelfile and a
    page with the commands go beside it. Raises RunError when the file is there already or the disk is too small,
    ModelError for an architecture that cannot be written and an adapter of another model.
    """
    if kind not in _ADAPTER_KINDS:
        raise SettingsError(f"An adapter cannot be written as {kind}.", f"Choose {' or '.join(_ADAPTER_KINDS)}.")
    path = _gguf_path(Path(to), kind, 1)
    if path.exists():
        raise RunError(f"{path} is there already.", "Choose another name with --to, or remove it first.")
    source = find_model(run.folder.root if isinstance(run, Run) else run)
    if is_merged(source):
        raise RunError("A merged model has no adapter apart.", "Give the run that it was merged from.")
    config, recipe = read_adapter_config(source), read_recipe(source)
    base = model or recipe.base_model
    shape = find_shape(base, download_config=base not in KNOWN).shape
    facts = _facts(recipe, source)
    own = Path(base).name if base.endswith(".gguf") and Path(base).name.isprintable() else "BASE.gguf"
    with damage_in(source):
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, local_files_only=True)
    with together() as written:
        written.append(path)
        write_gguf_adapter(path, config, read_weights(source, allow_bin=allow_bin), shape, facts, kind)
        written += _companions(path)
        _write_companions(path, recipe, tokenizer, recipe.max_length + recipe.max_new_tokens, base=own)
    return path


def _facts(recipe: Recipe, source: Path) -> GgufFacts:
    base = hub_name(source)
    title = f"{(base or 'model').rpartition('/')[2]} tuned"
    described = replace(recipe, base_model=base or "")
    return GgufFacts(title, base, known_license(base or ""), "Tuned on questions and answers.", described)


def _whole(tuned: TunedModel) -> PreTrainedModel:
    model: PreTrainedModel = tuned.model.get_base_model() if tuned.has_base else tuned.model
    return model


def _gguf_path(to: Path | None, kind: str, count: int) -> Path:
    if to is None:
        return Path(f"model.{kind}.gguf")
    if not to.name.isprintable():  # it stands in the Modelfile, where a line of its own is a command
        raise RunError(f"{to.name!r} cannot be the name of a model file.", "Leave line breaks and the like out of it.")
    if to.suffix != ".gguf":
        to = to.with_name(f"{to.name}.gguf")
    return to if count == 1 else to.with_name(f"{to.stem}.{kind}.gguf")


def _companions(path: Path) -> tuple[Path, Path]:
    return path.with_name(f"{path.name}.Modelfile"), path.with_name(f"{path.name}.txt")


def _write_companions(path: Path, recipe: Recipe, tokenizer: Any, context: int, base: str | None = None) -> None:
    """`base` is the file of the base model where `path` is an adapter alone."""
    template = PromptTemplate(recipe.template)
    use = Use(
        file=base or path.name,
        prompt=template.prompt("{question}"),
        stops=(str(tokenizer.eos_token), *template.stop_strings()),
        temperature=recipe.temperature,
        top_p=recipe.top_p,
        max_new_tokens=recipe.max_new_tokens,
        context=min(context, _OLLAMA_CONTEXT),
        adapter=path.name if base else None,
    )
    ollama, page = _companions(path)
    write_text(ollama, modelfile(use))
    write_text(page, how_to(use, "my-model"))
