"""`ask()` and `open_model()`: a finished run answers, as do its merged folder and its .gguf file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from peft import PeftModel

from phinetune.api.run import Run
from phinetune.errors import SettingsError
from phinetune.model import lora
from phinetune.model.device import pick_device, pick_dtype
from phinetune.model.gguf_base import gguf_note, gguf_summary
from phinetune.model.load import Base, find, load_base
from phinetune.recipe import RECIPE_KEY, Recipe, default_recipe, parse_recipe, read_recipe
from phinetune.run_folder import find_model
from phinetune.settings import GenerateSettings, load
from phinetune.tokens.encode import Encoder
from phinetune.tokens.prompt import PromptTemplate
from phinetune.use import generate

_SHARE_OF_MEMORY = 0.6
_VARIED = 0.7  # the temperature where answers are to vary and nothing says how much


@dataclass(frozen=True)
class TunedModel:
    """A tuned model in memory, ready to answer. With `base=True` its untuned base model answers instead."""

    model: Any
    encoder: Encoder
    defaults: GenerateSettings

    def ask(self, question: str, *, base: bool = False, greedy: bool | None = None, **options: Any) -> str:
        """The answer. `options`: temperature, top_p, max_new_tokens, seed.

        `greedy` always takes the likeliest word, greedy=False draws by chance; left out, the model's own settings and
        the `temperature` given decide, and unless they were changed the answer is the same each time.
        """
        return "".join(self.stream(question, base=base, greedy=greedy, **options))

    def stream(
        self,
        question: str,
        *,
        base: bool = False,
        greedy: bool | None = None,
        history: Sequence[tuple[str, str]] = (),
        **options: Any,
    ) -> Iterator[str]:
        """The answer, piece by piece as it is written.

        `history`: earlier questions and answers that go along, though the model was trained on single pairs.
        """
        if not question.strip():
            raise SettingsError("The question is empty.", 'Ask one: phinetune ask . "What is …?"')
        settings = self._settings(greedy, options)
        with self._answering(base):
            yield from generate.stream(self.model, self.encoder, question.strip(), settings, history)

    def answer_all(
        self,
        questions: Sequence[str],
        *,
        base: bool = False,
        greedy: bool = True,
        on_progress: Callable[[int], None] = lambda _: None,
        **options: Any,
    ) -> list[str]:
        """The answers to many questions, batched; greedy unless told otherwise. `on_progress` is told how many are
        done.
        """
        settings = self._settings(greedy, options)
        with self._answering(base):
            return generate.answers(self.model, self.encoder, [q.strip() for q in questions], settings, on_progress)

    def _settings(self, greedy: bool | None, options: dict[str, Any]) -> GenerateSettings:
        given = {name: value for name, value in options.items() if value is not None}
        if greedy:
            given["temperature"] = 0.0
        elif greedy is not None:
            given.setdefault("temperature", self.defaults.temperature or _VARIED)
        values = self.defaults.model_dump() | given
        return load(flags={f"generate.{name}": value for name, value in values.items()}).generate

    def answers_vary(self, greedy: bool | None = None, **options: Any) -> bool:
        """Whether `ask` with these options may answer otherwise the next time."""
        settings = self._settings(greedy, options)
        return settings.temperature > 0 and settings.seed is None

    @property
    def has_base(self) -> bool:
        """Whether the untuned base model can be asked too: a merged model has lost it."""
        return isinstance(self.model, PeftModel)

    def _answering(self, base: bool) -> AbstractContextManager[Any]:
        if base and not self.has_base:
            raise SettingsError(
                "This model is merged: what it learned cannot be taken out of it again.",
                "Ask the base model through the run that it was merged from.",
            )
        return self.model.disable_adapter() if base else nullcontext()


def open_model(
    run: Run | str | Path,
    *,
    model: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    allow_bin: bool = False,
) -> TunedModel:
    """Load a tuned model: a Run, the folder it is in, a folder that it was merged into, or its .gguf file. `model` is
    where its base model is now, when that is no longer where it was in training. `allow_bin` reads an adapter in pickle
    form, as numbers alone.

    A .gguf file that is not ours is asked with the default prompt. Raises RunError without a tuned model there,
    ModelError when its base model cannot be had.
    """
    where = pick_device(device)
    number_format = pick_dtype(where, dtype)
    path = Path(run.folder.root if isinstance(run, Run) else run)
    if path.is_file():
        base = load_base(str(path), number_format, where)
        note = gguf_note(path, RECIPE_KEY) if base.kind == "gguf" else None
        recipe = parse_recipe(note, path) if note is not None else default_recipe(str(path))
        return TunedModel(base.model, _encoder(base, recipe), recipe.generate())
    folder = find_model(path)
    recipe = read_recipe(folder)
    if is_merged(folder):
        base = load_base(str(folder), number_format, where)
        return TunedModel(base.model, _encoder(base, recipe), recipe.generate())
    base = load_base(model or recipe.base_model, number_format, where)
    adapted = lora.load_adapter(base.model, folder, allow_bin=allow_bin).to(where)
    return TunedModel(adapted, _encoder(base, recipe), recipe.generate())


def open_exactly(run: Run | str | Path, model: str | None, allow_bin: bool) -> TunedModel:
    """The tuned model in fp32, so that its weights are rounded once, when written, and its answers are its own; where
    that would fill the memory, in the format it is computed in.
    """
    source = find_model(run.folder.root if isinstance(run, Run) else run)
    path = source if is_merged(source) else find(model or read_recipe(source).base_model)
    files = path.glob("*.safetensors") if path.is_dir() else ()
    count = gguf_summary(path).parameters if path.is_file() else sum(file.stat().st_size for file in files) // 2
    fits = 4 * count < _SHARE_OF_MEMORY * psutil.virtual_memory().available
    return open_model(run, model=model, device="cpu", dtype="fp32" if fits else "auto", allow_bin=allow_bin)


def is_merged(folder: Path) -> bool:
    """Whether a model folder holds a whole model and no adapter."""
    return (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file()


def _encoder(base: Base, recipe: Recipe) -> Encoder:
    return Encoder(base.tokenizer, PromptTemplate(recipe.template), recipe.max_length)


def ask(
    run: Run | str | Path, question: str, *, model: str | None = None, allow_bin: bool = False, **options: Any
) -> str:
    """The tuned model's answer to one question; see `TunedModel.ask` for the options, `open_model` for `model` and
    `allow_bin`.

    Loads the model each time: for more than one question, open it once with `open_model`.
    """
    return open_model(run, model=model, allow_bin=allow_bin).ask(question, **options)
