"""Every setting of a run, each declared once: name, default, bounds and help.

The command line, the configuration file, the error messages and the written `training_config.json` all read
these declarations. Values are laid over each other in this order, the later one winning:

    defaults < what suits the base model < preset < --config file < flags < --set
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from phinetune.errors import SettingsError

DEFAULT_TEMPLATE = "### Question: {question}\n\n### Answer: {answer}"
DEFAULT_MODEL = "microsoft/phi-2"
EMBEDDED_MODEL = "smollm2-135m"

Overrides = dict[str, dict[str, Any]]


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataSettings(_Group):
    question: str | None = Field(None, description="Column with the questions; found by its name when left out.")
    answer: str | None = Field(None, description="Column with the answers; found by its name when left out.")
    sheet: str | None = Field(
        None, description="Sheet of the workbook to use; the ones with questions and answers when left out."
    )
    template: str = Field(DEFAULT_TEMPLATE, description="The text around a pair; needs {question} and {answer}.")
    max_length: int = Field(512, ge=8, le=131072, description="Longest pair in tokens; a longer answer is cut.")
    validation_share: float = Field(0.1, gt=0, lt=1, description="Share of the pairs held out to measure progress.")
    seed: int = Field(42, ge=0, lt=2**32, description="Chooses which pairs are held out.")
    limit: int | None = Field(None, ge=1, description="Use only the first N pairs: a quick trial.")


class LoraSettings(_Group):
    r: int = Field(16, ge=1, le=1024, description="Rank of the adapter: how much it can learn.")
    alpha: float = Field(32, gt=0, description="Strength of the adapter; alpha / r multiplies what it adds.")
    dropout: float = Field(0.05, ge=0, lt=1, description="Share of adapter inputs dropped at random in training.")
    target_modules: str | list[str] = Field(
        "all", description="Layers that get an adapter: all, attention, minimal (q and v), or their names."
    )


class TrainSettings(_Group):
    epochs: float = Field(5, gt=0, le=1000, description="How many times every pair is seen.")
    batch_size: int = Field(4, ge=1, description="Pairs that go through the model at once.")
    grad_accum: int = Field(4, ge=1, description="Such batches in one optimizer step.")
    learning_rate: float = Field(2e-4, gt=0, lt=1, description="Size of an optimizer step at its peak.")
    warmup_steps: int | None = Field(
        None,
        ge=0,
        description="Steps in which the learning rate rises from 0; when left out 100, but at most 10 % of all steps.",
    )
    weight_decay: float = Field(0.01, ge=0, le=1, description="Pull of the adapter weights towards 0 (AdamW).")
    max_grad_norm: float = Field(1.0, gt=0, description="Longer gradients are shortened to this length.")
    eval_steps: int | None = Field(
        None, ge=1, description="Steps between validations; when left out 50, and at the end of every epoch."
    )
    save_steps: int | None = Field(
        None, ge=1, description="Steps between checkpoints; when left out 50, and at the end of every epoch."
    )
    patience: int = Field(3, ge=0, description="Stop after so many validations without a better one; 0 never stops.")
    keep_checkpoints: int = Field(2, ge=1, description="Latest checkpoints to keep besides the best.")
    seed: int = Field(42, ge=0, lt=2**32, description="Fixes the order of the pairs, the adapter's start and dropout.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="Where to train.")
    dtype: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto",
        description="Number format of the base weights; auto takes what the device computes fastest without loss.",
    )
    gradient_checkpointing: bool | Literal["auto"] = Field(
        "auto",
        description="Recompute instead of remember: less memory, about a third slower; auto uses it when needed.",
    )
    adapter_format: Literal["safetensors", "bin"] = Field("safetensors", description="File format of the adapter.")

    @property
    def examples_per_step(self) -> int:
        return self.batch_size * self.grad_accum


class GenerateSettings(_Group):
    temperature: float = Field(
        0.7, ge=0, le=10, description="Higher is more varied; 0 always takes the likeliest word."
    )
    top_p: float = Field(0.9, gt=0, le=1, description="Choose among the likeliest words with this share in total.")
    max_new_tokens: int = Field(256, ge=1, le=131072, description="Longest answer in tokens.")
    seed: int | None = Field(None, ge=0, lt=2**32, description="Makes sampled answers repeatable.")


class Settings(_Group):
    """All settings of a run."""

    model: Annotated[str, Field(min_length=1)] = Field(
        DEFAULT_MODEL,
        description=f"Base model: a Hugging Face name, a folder, a .gguf file, or {EMBEDDED_MODEL}.",
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
    "seed": ("train.seed", "data.seed"),
    "device": ("train.device",),
    "dtype": ("train.dtype",),
    "adapter_format": ("train.adapter_format",),
}


def load(
    *,
    preset: str | None = None,
    config: str | Path | None = None,
    flags: Mapping[str, Any] | None = None,
    assignments: Iterable[str] = (),
) -> Settings:
    """Settings from all their sources. `flags` maps short ("lora_r") or dotted names ("lora.r") to values, None
    meaning not given; `assignments` are "lora.r=32" texts.

    Raises SettingsError that lists every unknown name and every wrong value together.
    """
    problems: list[str] = []
    by_hand: dict[str, Any] = {}
    if config is not None:
        _overlay(by_hand, _read_config(Path(config)))
    given: dict[str, Any] = {}
    for short, value in (flags or {}).items():
        if value is not None:
            given |= dict.fromkeys(SHORT_NAMES.get(short, (short,)), value)
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            problems.append(f"--set {text}: write it as name=value, for example --set lora.r=32")
            continue
        given[name.strip()] = _yaml_value(value)
    for name, value in given.items():
        *parents, leaf = name.split(".")
        nested: dict[str, Any] = {leaf: value}
        for parent in reversed(parents):
            nested = {parent: nested}
        _overlay(by_hand, nested)
    if preset is not None and preset not in PRESETS:
        problems.append(f"preset {preset}: there is none of that name; choose one of {', '.join(PRESETS)}")

    merged: dict[str, Any] = {}
    model = by_hand.get("model", DEFAULT_MODEL)
    recipe = MODEL_RECIPES.get(model, {}) if isinstance(model, str) else {}
    _overlay(merged, recipe)
    _overlay(merged, PRESETS.get(preset or "", {}))
    if recipe:  # a preset's learning rate is meant for models of Phi-2's size
        merged["train"]["learning_rate"] = recipe["train"]["learning_rate"]
    _overlay(merged, by_hand)
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        problems += [_explain(detail) for detail in error.errors(include_url=False)]
    if problems:
        count = "1 setting is" if len(problems) == 1 else f"{len(problems)} settings are"
        raise SettingsError(
            f"{count} wrong:\n" + "\n".join(f"  {problem}" for problem in problems),
            "--help after the command lists what can be set.",
        )
    return settings


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


def _read_config(path: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingsError(
            f"The settings file {path} cannot be read: {reason}.", "Check the name after --config."
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise SettingsError(
            f"The settings file {path}{where} is not valid YAML.",
            "Write one `name: value` a line, groups indented below data:, lora:, train:, generate:.",
        ) from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SettingsError(
            f"The settings file {path} holds no settings.",
            "Write groups like `lora:` with indented `r: 32` lines below.",
        )
    return value


def _yaml_value(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    try:
        return float(value) if isinstance(value, str) else value  # YAML reads 1e-4 as a text
    except ValueError:
        return value


def _overlay(target: dict[str, Any], values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, Mapping) and isinstance(target.get(name), dict):
            _overlay(target[name], value)
        else:
            target[name] = dict(value) if isinstance(value, Mapping) else value


def _explain(detail: Any) -> str:
    # A union field reports the member that failed as a further path element ("train.dtype.literal[...]").
    known = names()
    path = [str(part) for part in detail["loc"]]
    name = ".".join(path)
    while path and name not in known and detail["type"] != "extra_forbidden":
        path.pop()
        name = ".".join(path)
    name = name or ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        return f"{name}: there is no such setting" + (f"; did you mean {near[0]}?" if near else "")
    return f"{name} = {detail['input']!r}: {detail['msg'][0].lower()}{detail['msg'][1:]}"
