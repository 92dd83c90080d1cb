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
from phinetune.recipe import Recipe
from phinetune.run_folder import RunFolder, atomic_folder, discard, write_json
from phinetune.settings import Settings
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


def run_config(settings: Settings, sheet: Path, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Every setting, the versions, the device and the data file's hash: what it takes to do the run again."""
    return {
        "settings": settings.model_dump(mode="json"),
        "data_file": {"name": sheet.name, "sha256": hashlib.sha256(sheet.read_bytes()).hexdigest()},
        "device": describe(device),
        "dtype": dtype_name(dtype),
        "kernels": "plain" if ops_for(torch.empty(0, dtype=dtype, device=device)) is PLAIN else "native",
        "seed": settings.train.seed,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("phinetune", "torch", "transformers", "peft")},
    }


def run_record(config: dict[str, Any], parts: Split, template: PromptTemplate) -> dict[str, Any]:
    """What `training.same_run` compares when the run is gone on with: see there what the names decide."""
    settings = config["settings"]
    flat = {f"{group}.{name}": value for group in ("data", "lora", "train") for name, value in settings[group].items()}
    texts = [[(pair.question, pair.answer) for pair in part] for part in (parts.train, parts.validation)]
    return {
        "model": settings["model"],
        "dtype": config["dtype"],
        "pairs": hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:12],
        "pairs.train": len(parts.train),
        "pairs.validation": len(parts.validation),
        "template": template.text,
        "train.examples_per_step": settings["train"]["batch_size"] * settings["train"]["grad_accum"],
        **{name: value for name, value in flat.items() if name not in _FREE_TO_CHANGE},
        "machine.device": config["device"],
        "machine.kernels": config["kernels"],
        "machine.torch": config["versions"]["torch"],
    }


class Dispensable:
    """Around what a run can do without: a file that cannot be written is said once, and the run goes on."""

    def __init__(self, on_event: Callable[[Event], None]) -> None:
        self._on_event = on_event
        self._said: set[str] = set()

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        try:
            yield
        except (PhinetuneError, OSError) as error:
            if what not in self._said:
                self._said.add(what)
                said = error.message if isinstance(error, PhinetuneError) else f"{error}."
                self._on_event(Warned("not_written", f"There is a problem with {what}, not with the model: {said}"))


def write_visuals(folder: RunFolder, figures: Summary, config: dict[str, Any]) -> None:
    write_json(folder.config_json, config)
    write_json(folder.metrics_json, figures)
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
) -> None:
    """The model folder: adapter, tokenizer, card, and what `ask` needs to know. An earlier model goes.

    Raises RunError that says what is safe when it cannot be written.
    """
    folder = checkpoints.folder
    try:
        _write_model(folder.model, model, base, settings, template, pairs, figures, config, diagnosis)
    except RunError as error:
        step, _ = checkpoints.newest_good()
        safe = "No checkpoint could be saved either."
        if step is not None:
            safe = f"checkpoint-{step} is safe: the same command with --resume then goes on from it to the model."
        raise RunError(
            f"Training is done, and its model could not be saved: {error.message}", f"{error.hint} {safe}"
        ) from error
    if folder.model_before.exists():
        discard(folder.model_before)


def _write_model(
    place: Path,
    model: PeftModel,
    base: Base,
    settings: Settings,
    template: PromptTemplate,
    pairs: PairTable,
    figures: Summary,
    config: dict[str, Any],
    diagnosis: Sequence[Diagnosis],
) -> None:
    with atomic_folder(place) as temporary:
        lora.save(model, temporary)
        if settings.train.adapter_format == "bin":
            lora.pickle_weights(temporary)
        base.tokenizer.save_pretrained(temporary)
        special = json.dumps(base.tokenizer.special_tokens_map, indent=2)
        (temporary / "special_tokens_map.json").write_text(special + "\n", encoding="utf-8")
        Recipe(
            base_model=base.spec,
            template=template.text,
            max_length=settings.data.max_length,
            temperature=settings.generate.temperature,
            top_p=settings.generate.top_p,
            max_new_tokens=settings.generate.max_new_tokens,
        ).write(temporary)
        write_card(temporary / "README.md", _card_facts(base, settings, template, pairs, figures, config, diagnosis))


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
