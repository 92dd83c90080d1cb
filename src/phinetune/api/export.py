"""`export_gguf()` and `export_gguf_adapter()`: the tuned model as .gguf files, read back and measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from phinetune.api.ask import is_merged
from phinetune.api.read_back import Exported, held_against, hub_name, measure, megabytes, tuned_weights
from phinetune.api.run import Run
from phinetune.artifacts.gguf import GgufFacts, file_bytes, write_gguf
from phinetune.artifacts.gguf_adapter import write_gguf_adapter
from phinetune.artifacts.merge import require_space
from phinetune.artifacts.modelfile import Use, how_to, modelfile
from phinetune.artifacts.quantize import check_kinds
from phinetune.errors import RunError, SettingsError
from phinetune.model.adapter_config import read_adapter_config
from phinetune.model.device import keeping_freed_memory
from phinetune.model.find_shape import KNOWN, find_shape
from phinetune.model.folder import damage_in
from phinetune.model.load import known_license
from phinetune.model.lora import read_weights
from phinetune.recipe import Recipe, read_recipe
from phinetune.run_folder import find_model, together, write_text
from phinetune.tokens.encode import Encoder
from phinetune.tokens.prompt import PromptTemplate

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
    for Ollama and a page with the commands. The weights are read, merged and packed some rows at a time; `check`
    then holds the loss of every file against the adapter's, and reads the weights one at a time for that. Raises
    SettingsError for an unknown kind or none, ModelError for an architecture that cannot be written, an adapter of
    another model, or a file that does not say what the adapter says, RunError when a file is there already or the disk
    is too small. Then no file is left.
    """
    kinds = check_kinds(quantize)
    paths = [_gguf_path(Path(to) if to is not None else None, kind, len(kinds)) for kind in kinds]
    for path in paths:
        if path.exists():
            raise RunError(f"{path} is there already.", "Choose another name with --to, or remove it first.")
    source = find_model(run.folder.root if isinstance(run, Run) else run)
    recipe = read_recipe(source)
    stored = tuned_weights(run, model, allow_bin)
    encoder = Encoder(stored.tokenizer, PromptTemplate(recipe.template), recipe.max_length)
    facts = replace(_facts(recipe, source), chat_template=encoder.chat_template())
    require_space(paths[0], sum(file_bytes(kind, stored.tensors, stored.config) for kind in kinds))
    with together() as written:
        for kind, path in zip(kinds, paths, strict=True):
            written.append(path)
            with keeping_freed_memory():  # every weight takes buffers of the same sizes
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
            measured = measure(run, model, allow_bin)
            return [held_against(path, kind, measured) for kind, path in zip(kinds, paths, strict=True)]
    return [Exported(path, kind, megabytes(path), None, None, "") for kind, path in zip(kinds, paths, strict=True)]


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
