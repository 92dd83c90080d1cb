"""adapter_config.json -> the LoraConfig of a plain adapter, from nothing but the values that such a one has.

    {"peft_type": "LORA", "r": 16, "target_modules": ["q_proj", …], …}  ->  LoraConfig(r=16, …)

The file may come from anybody. PEFT takes all that is in it: a name of a module to import, a pattern that runs for
hours, layers to copy a million times. Only what plain LoRA needs is taken here, and what else is set is refused.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from peft import LoraConfig

from phinetune.errors import ModelError

CONFIG = "adapter_config.json"
_MOST_BYTES = 1 << 20
_LAYER = re.compile(r"[\w.]{1,300}")  # a name and no pattern: PEFT searches for it as it stands
# What says where the adapter comes from, and changes nothing of what it does.
_TOLD_ONLY = {
    "peft_type",
    "task_type",
    "inference_mode",
    "revision",
    "auto_mapping",
    "peft_version",
    "init_lora_weights",
}


def read_adapter_config(folder: Path) -> LoraConfig:
    """The configuration of the adapter in `folder`. Raises ModelError for one that is missing, damaged or not plain."""
    path = folder / CONFIG
    if not path.is_file():
        raise ModelError(f"{folder} holds no adapter: {CONFIG} is missing.", "Name a finished run.")
    values = _read(path)
    if values.get("peft_type") != "LORA":
        raise ModelError(f"{path} is no LoRA adapter.", "Train one with phinetune, or give another folder.")
    patterns = {name: _ranks(path, values, name) for name in ("rank_pattern", "alpha_pattern")}
    taken: dict[str, Any] = {
        "r": _number(path, values, "r", 8, 1, 1 << 16, whole=True),
        "lora_alpha": _number(path, values, "lora_alpha", 8, 0, 1e9),
        "lora_dropout": _number(path, values, "lora_dropout", 0.0, 0, 1),
        "target_modules": _layers(path, values),
        "bias": values.get("bias", "none"),
        "base_model_name_or_path": str(values.get("base_model_name_or_path") or ""),
        **{name: bool(values.get(name)) for name in ("use_rslora", "use_dora", "fan_in_fan_out")},
        **patterns,
    }
    if taken["bias"] != "none":
        raise _refused(path, "bias")
    _refuse_others(path, values, {*taken, *_TOLD_ONLY})
    return LoraConfig(task_type="CAUSAL_LM", inference_mode=True, **taken)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES)
        values = json.loads(data)
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, str(error)[:200]) from None
    if not isinstance(values, dict):
        raise _damaged(path, "it holds no settings")
    return values


def _number(
    path: Path, values: dict[str, Any], name: str, default: Any, low: float, high: float, *, whole: bool = False
) -> Any:
    value = values.get(name, default)
    kind = int if whole else (int, float)
    # Compared before it becomes a float: a whole number may be too large for one.
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high or not math.isfinite(value):
        raise _damaged(path, f"{name} is no number from {low} to {high:g}")
    return value


def _layers(path: Path, values: dict[str, Any]) -> list[str]:
    layers = values.get("target_modules")
    if (
        not isinstance(layers, list)
        or not layers
        or not all(isinstance(n, str) and _LAYER.fullmatch(n) for n in layers)
    ):
        raise _damaged(path, "target_modules is no list of layers by name")
    return sorted(set(layers))


def _ranks(path: Path, values: dict[str, Any], name: str) -> dict[str, Any]:
    ranks = values.get(name) or {}
    if not isinstance(ranks, dict) or not all(_LAYER.fullmatch(layer) for layer in ranks):
        raise _damaged(path, f"{name} is no list of layers by name")
    whole = name == "rank_pattern"
    return {layer: _number(path, ranks, layer, 0, 1 if whole else 0, 1 << 16, whole=whole) for layer in ranks}


def _refuse_others(path: Path, values: dict[str, Any], known: set[str]) -> None:
    """Whatever else is set to something: it would change what the adapter does."""
    defaults = {f.name: None if f.default is MISSING else f.default for f in fields(LoraConfig)}
    for name, value in values.items():
        if name not in known and value and not _equal(value, defaults.get(name)):
            raise _refused(path, name)


def _equal(value: Any, default: Any) -> bool:
    return type(value) is type(default) and bool(value == default)


def _refused(path: Path, name: str) -> ModelError:
    return ModelError(
        f"{path} sets {name[:60]}, which is not supported.",
        "Plain LoRA adapters can be used; merge this one with PEFT.",
    )


def _damaged(path: Path, why: str) -> ModelError:
    return ModelError(f"{path} is damaged: {why}.", "Copy it again from where it was trained, or train again.")
