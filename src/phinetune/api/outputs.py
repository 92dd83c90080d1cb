"""What a run leaves behind: the pictures and figures, and the model folder, which is written last and as a whole."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from phinetune.artifacts.card import CardFacts, write_card
from phinetune.artifacts.diagnosis import Diagnosis
from phinetune.artifacts.metrics import Summary
from phinetune.artifacts.plots import draw_run
from phinetune.errors import PhinetuneError, RunError
from phinetune.events import Event, Warned
from phinetune.model import lora
from phinetune.model.device import describe, dtype_name
from phinetune.model.load import Base
from phinetune.model.ops import ops_for
from phinetune.model.ops.plain import PLAIN
from phinetune.model.out_of_memory import is_out_of_memory, release_memory, try_twice
from phinetune.recipe import Recipe
from phinetune.run_folder import RunFolder, atomic_folder, discard, write_json
from phinetune.settings import Settings
from phinetune.sheet.findings import Pair
from phinetune.sheet.pairs import PairTable
from phinetune.sheet.split import Split
from phinetune.tokens.prompt import PromptTemplate
from phinetune.training.checkpoint import Checkpoints

# What may differ between a run and its resume without changing the result, save for its rounding.
_FREE_TO_CHANGE = {
    "train.patience",
    "train.keep",  # both states are there to choose from; a resume that keeps the other trains nothing again
    "train.save_steps",
    "train.keep_checkpoints",
    "train.adapter_format",
    "train.device",
    "train.dtype",  # what became of it counts
    "train.batch_size",  # so does their product
    "train.grad_accum",
    "train.gradient_checkpointing",
    "data.template",  # as it is after reading \n and the like
}


def run_config(
    settings: Settings, pairs: PairTable, base: dict[str, str], device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """Every setting, the versions, the device, what the data file is and what the base model is (`model.identity`):
    what it takes to do the run again.
    """
    return {
        "settings": settings.model_dump(mode="json"),
        "data_file": {"name": pairs.file, "sha256": pairs.sha256},
        "base_model": base,
        "device": describe(device),
        "dtype": dtype_name(dtype),
        "kernels": "plain" if ops_for(torch.empty(0, dtype=dtype, device=device)) is PLAIN else "native",
        "seed": settings.train.seed,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("phinetune", "torch", "transformers", "peft")},
    }


def run_record(config: dict[str, Any], pairs: PairTable, parts: Split, template: PromptTemplate) -> dict[str, Any]:
    """What `training.same_run` compares when the run is gone on with: see there what the names decide."""
    settings = config["settings"]
    flat = {f"{group}.{name}": value for group in ("data", "lora", "train") for name, value in settings[group].items()}
    return {
        "model": settings["model"],
        **{f"model.{part}": digest for part, digest in config["base_model"].items()},
        "dtype": config["dtype"],
        "pairs": _hash(parts.train, parts.validation),
        "pairs.found": _hash(pairs.pairs),
        "pairs.train": len(parts.train),
        "pairs.validation": len(parts.validation),
        "template": template.text,
        "train.examples_per_step": settings["train"]["batch_size"] * settings["train"]["grad_accum"],
        **{name: value for name, value in flat.items() if name not in _FREE_TO_CHANGE},
        "machine.device": config["device"],
        "machine.kernels": config["kernels"],
        "machine.torch": config["versions"]["torch"],
    }


def _hash(*parts: Sequence[Pair]) -> str:
    texts = [[(pair.question, pair.answer) for pair in part] for part in parts]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:12]


class Dispensable:
    """Around what a run can do without: whatever goes wrong there is said once, and the run goes on."""

    def __init__(self, on_event: Callable[[Event], None]) -> None:
        self._on_event = on_event
        self._said_of: set[str] = set()

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            said = _said(error)
        else:
            return
        release_memory()  # only here is the error gone, and with it what its traceback held
        if what not in self._said_of:
            self._said_of.add(what)
            self._on_event(Warned("not_written", f"There is a problem with {what}, not with the model: {said}"))


def _said(error: Exception) -> str:
    if is_out_of_memory(error):
        return "there was no memory for it."
    if isinstance(error, PhinetuneError):
        return error.message
    if isinstance(error, OSError):
        return f"{error}."
    return f"{type(error).__name__}, {str(error)[:200]}."


def write_visuals(folder: RunFolder, figures: Summary, config: dict[str, Any], dispensable: Dispensable) -> None:
    """The figures, and where they can be drawn the pictures. Raises RunError when the figures cannot be written."""
    write_json(folder.config_json, config)
    write_json(folder.metrics_json, figures)
    with dispensable("the pictures"):
        draw_run(folder, title=f"{config['settings']['model']} on {config['data_file']['name']}")


def write_model(
    checkpoints: Checkpoints,
    model: PeftModel,
    base: Base,
    settings: Settings,
    template: PromptTemplate,
    pairs: PairTable,
    figures: Summary,
    config: dict[str, Any],
    diagnosis: Sequence[Diagnosis],
    dispensable: Dispensable,
) -> None:
    """The model folder: adapter, tokenizer, what `ask` needs to know, and a card. An earlier model goes.

    Tried again where memory was refused. Raises RunError that says what is safe when it cannot be written.
    """
    folder = checkpoints.folder

    def needs() -> int:
        copies = 2 if settings.train.adapter_format == "bin" else 1
        return copies * lora.saved_bytes(model) + len(base.tokenizer.backend_tokenizer.to_str(pretty=True).encode())

    def write() -> None:
        with atomic_folder(folder.model, needs) as temporary:
            _write_parts(temporary, model, base, settings, template)
            with dispensable("the model card"):
                facts = _card_facts(base, settings, template, pairs, figures, config, diagnosis)
                write_card(temporary / "README.md", facts)

    try:
        try_twice(write)
    except Exception as error:
        if not (isinstance(error, RunError) or is_out_of_memory(error)):
            raise
        said, hint = _said(error), getattr(error, "hint", "Close other programs.")
        raise RunError(
            f"Training is done, and its model could not be saved: {said}", f"{hint} {checkpoints.what_is_safe()}"
        ) from error
    if folder.model_before.exists():
        discard(folder.model_before)


def _write_parts(place: Path, model: PeftModel, base: Base, settings: Settings, template: PromptTemplate) -> None:
    lora.save(model, place)
    if settings.train.adapter_format == "bin":
        lora.pickle_weights(place)
    base.tokenizer.save_pretrained(place)
    special = json.dumps(base.tokenizer.special_tokens_map, indent=2)
    (place / "special_tokens_map.json").write_text(special + "\n", encoding="utf-8")
    Recipe(
        base_model=base.spec,
        template=template.text,
        max_length=settings.data.max_length,
        temperature=settings.generate.temperature,
        top_p=settings.generate.top_p,
        max_new_tokens=settings.generate.max_new_tokens,
    ).write(place)


def _card_facts(
    base: Base,
    settings: Settings,
    template: PromptTemplate,
    pairs: PairTable,
    figures: Summary,
    config: dict[str, Any],
    diagnosis: Sequence[Diagnosis],
) -> CardFacts:
    sheets = [pairs.sheet] if isinstance(pairs.sheet, str) else pairs.sheet or []
    return CardFacts(
        base_model=settings.model,
        base_kind=base.kind,
        hub_model=base.hub_name,
        base_license=base.license,
        data_file=config["data_file"]["name"],
        sheets=tuple(sheets),
        question_column=pairs.question_column,
        answer_column=pairs.answer_column,
        pairs=len(pairs.pairs),
        skipped_rows=len(pairs.skipped),
        prompt=template.prompt("{question}"),
        completion=template.completion("{answer}"),
        settings=config["settings"],
        figures=figures,
        device=config["device"],
        dtype=config["dtype"],
        diagnosis=tuple(diagnosis),
    )
