"""`serve()`: a tuned model behind an OpenAI-compatible HTTP interface."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import gguf

from phinetune.api.ask import is_merged
from phinetune.api.export import export_gguf
from phinetune.api.run import Run
from phinetune.errors import RunError
from phinetune.model.gguf_base import gguf_note
from phinetune.recipe import RECIPE_KEY, Recipe, default_recipe, parse_recipe, read_recipe
from phinetune.run_folder import RunFolder, find_model
from phinetune.tokens.prompt import PromptTemplate
from phinetune.use.serve import ModelServer, Serving

_KIND = "q8_0"
_CACHE = ".served"


def serve(
    run: Run | str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    api_key: str | None = None,
    at_once: int = 4,
    model: str | None = None,
    adapter: str | Path | None = None,
    allow_bin: bool = False,
    log: bool = False,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
) -> ModelServer:
    """Start serving a run, a merged folder or a .gguf file; `with serve(run) as server:` ends it again.

    A run or folder is packed to a .gguf file (q8_0) in its folder .served first, once for as long as its
    weights stay the same. `at_once` questions are answered side by side. `adapter` is a .gguf file of an adapter alone,
    applied to the .gguf base model. `allow_bin` reads an adapter in pickle form. `log` has llama.cpp say on standard
    error how long each answer took. Raises SettingsError, RunError and ModelError as their causes do.
    """
    path = Path(run.folder.root if isinstance(run, Run) else run)
    lora = Path(adapter) if adapter is not None else None
    if path.is_file():
        if gguf_note(path, gguf.Keys.General.TYPE) == "adapter":
            raise RunError(
                f"{path} is an adapter alone, and not a model.",
                "Serve the run it was written from, or the whole model: phinetune gguf without --adapter.",
            )
        note = gguf_note(lora or path, RECIPE_KEY)
        file, recipe = path, parse_recipe(note, path) if note is not None else default_recipe(str(path))
    else:
        folder = find_model(path)
        file, recipe = _packed(folder, model, allow_bin, on_progress), read_recipe(folder)
    serving = Serving(
        host=host,
        port=port,
        api_key=api_key,
        name=path.stem or "tuned",
        context=_context(recipe),
        at_once=at_once,
        temperature=recipe.temperature,
        top_p=recipe.top_p,
        max_new_tokens=recipe.max_new_tokens,
        adapter=lora,
        log=log,
    )
    return ModelServer(file, PromptTemplate(recipe.template), serving)


def _packed(folder: Path, model: str | None, allow_bin: bool, on_progress: Callable[[str, int, int], None]) -> Path:
    weights = sorted(file for file in folder.iterdir() if file.suffix in (".safetensors", ".bin"))
    digest = hashlib.sha256((model or "").encode())
    for file in weights:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    place = _cache_of(folder) / f"model-{digest.hexdigest()[:12]}.{_KIND}.gguf"
    if not place.exists():
        for old in place.parent.glob(f"model-{'?' * 12}.{_KIND}.gguf*"):
            old.unlink()
        export_gguf(folder, place, quantize=[_KIND], model=model, allow_bin=allow_bin, on_progress=on_progress)
    return place


def _cache_of(folder: Path) -> Path:
    """Within the run, or within the folder itself where it stands alone: what is beside that is somebody's own."""
    folder = folder.resolve()
    run = RunFolder(folder.parent)
    return (run.root if run.model == folder and not is_merged(folder) else folder) / _CACHE


def _context(recipe: Recipe) -> int:
    return recipe.max_length + recipe.max_new_tokens
