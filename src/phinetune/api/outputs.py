"""What a run leaves behind: the pictures and figures, and the model folder, which is written last and as a whole."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from phinetune.artifacts.card import CardFacts, write_card
from phinetune.artifacts.diagnosis import Diagnosis
from phinetune.artifacts.metrics import Summary
from phinetune.artifacts.plots import draw_run
from phinetune.model import lora
from phinetune.model.device import describe, dtype_name
from phinetune.model.load import Base
from phinetune.model.ops import ops_for
from phinetune.model.ops.plain import PLAIN
from phinetune.recipe import Recipe
from phinetune.run_folder import RunFolder, atomic_folder, write_json
from phinetune.settings import Settings
from phinetune.sheet.pairs import PairTable
from phinetune.tokens.prompt import PromptTemplate

# What may differ between a run and its resume without changing the result.
_FREE_TO_CHANGE = ("patience", "keep_checkpoints", "adapter_format", "device")


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


def fingerprint(config: dict[str, Any]) -> dict[str, Any]:
    """The part of `config` that decides the result, flat, for a resume to compare."""
    settings = config["settings"]
    flat = {f"{group}.{name}": value for group in ("data", "lora", "train") for name, value in settings[group].items()}
    decided = {name: value for name, value in flat.items() if name.partition(".")[2] not in _FREE_TO_CHANGE}
    return {
        "sheet": config["data_file"]["sha256"][:12],
        "model": settings["model"],
        "dtype": config["dtype"],
        "kernels": config["kernels"],
        **decided,
    }


def write_visuals(folder: RunFolder, figures: Summary, config: dict[str, Any]) -> None:
    write_json(folder.config_json, config)
    write_json(folder.metrics_json, figures)
    draw_run(folder, title=f"{config['settings']['model']} on {config['data_file']['name']}")


def write_model(
    folder: RunFolder,
    model: PeftModel,
    base: Base,
    settings: Settings,
    template: PromptTemplate,
    pairs: PairTable,
    figures: Summary,
    config: dict[str, Any],
    diagnosis: Sequence[Diagnosis],
) -> None:
    """The model folder: adapter, tokenizer, card, and what `ask` needs to know."""
    with atomic_folder(folder.model) as temporary:
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
