"""All settings of a run in their groups, the presets, and the short names that the command line gives them.

Each is declared once, in `data`, `lora`, `train` or `generate`: `--help`, `phinetune explain`, docs/settings.md, the
configuration file, the error messages, the model card and the written `training_config.json` read those declarations.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from phinetune.settings.data import DataSettings
from phinetune.settings.field import Group, setting
from phinetune.settings.generate import GenerateSettings
from phinetune.settings.lora import LoraSettings
from phinetune.settings.train import TrainSettings

DEFAULT_MODEL = "microsoft/phi-2"
EMBEDDED_MODEL = "smollm2-135m"

Overrides = dict[str, dict[str, Any]]


class Settings(Group):
    """All settings of a run."""

    model: Annotated[str, Field(min_length=1)] = setting(
        DEFAULT_MODEL,
        f"Base model: a Hugging Face name, a folder, a .gguf file, or {EMBEDDED_MODEL}.",
        more="A larger model answers better, and needs more memory and time. A smaller one fits more machines, and "
        "likes a higher learning rate.",
        less="Phi-2: 2.8 billion parameters, good at English, in 16-bit numbers about 6 GB.",
        when="It does not fit (phinetune plan), or another model knows your language or field better.",
        also=("base model", "Phi-2", "GGUF"),
    )
    data: DataSettings = DataSettings()
    lora: LoraSettings = LoraSettings()
    train: TrainSettings = TrainSettings()
    generate: GenerateSettings = GenerateSettings()


PRESETS: dict[str, Overrides] = {
    "fast": {"train": {"epochs": 3, "batch_size": 8, "grad_accum": 2}},
    "quality": {"train": {"epochs": 10, "learning_rate": 1e-4}, "lora": {"r": 32}},
    "small-data": {"train": {"epochs": 10}, "lora": {"dropout": 0.1}},
    "large-data": {"train": {"epochs": 2, "batch_size": 8, "grad_accum": 2}},
}

# The guide's 2e-4 suits 2.7 billion parameters; a small model needs larger and more frequent steps. SmolLM2-135M after
# the 98 facts of our handbook, held-out wordings answered right: 16 pairs a step at 1e-3, 6 epochs, 98 % (10 minutes
# on two AVX2 cores); 8 pairs a step at 1.5e-3, 3 epochs, 96 % (6 minutes); at 1e-3, 4 epochs, 99 % (8 minutes).
MODEL_RECIPES: dict[str, Overrides] = {
    EMBEDDED_MODEL: {"train": {"epochs": 4, "learning_rate": 1e-3, "batch_size": 8, "grad_accum": 1}},
}

# What the command line and `phinetune.train(...)` call the common settings.
SHORT_NAMES = {
    "model": ("model",),
    "question": ("data.question",),
    "answer": ("data.answer",),
    "sheet_name": ("data.sheet",),
    "template": ("data.template",),
    "max_length": ("data.max_length",),
    "limit": ("data.limit",),
    "lora_r": ("lora.r",),
    "lora_alpha": ("lora.alpha",),
    "lora_dropout": ("lora.dropout",),
    "target_modules": ("lora.target_modules",),
    "epochs": ("train.epochs",),
    "batch_size": ("train.batch_size",),
    "grad_accum": ("train.grad_accum",),
    "lr": ("train.learning_rate",),
    "warmup_steps": ("train.warmup_steps",),
    "patience": ("train.patience",),
    "keep": ("train.keep",),
    "seed": ("train.seed", "data.seed"),
    "device": ("train.device",),
    "dtype": ("train.dtype",),
    "adapter_format": ("train.adapter_format",),
}


def names() -> list[str]:
    """Every setting as a dotted name, in order of declaration."""
    groups = {name: field.annotation for name, field in Settings.model_fields.items()}
    found = []
    for name, kind in groups.items():
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found += [f"{name}.{leaf}" for leaf in kind.model_fields]
        else:
            found.append(name)
    return found
