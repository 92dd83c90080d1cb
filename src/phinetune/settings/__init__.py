"""Every setting of a run, each declared once; loading them from presets, files and flags; explaining them."""

from __future__ import annotations

from phinetune.settings.data import DEFAULT_TEMPLATE, DataSettings
from phinetune.settings.declared import (
    DEFAULT_MODEL,
    EMBEDDED_MODEL,
    MODEL_RECIPES,
    PRESETS,
    SHORT_NAMES,
    Overrides,
    Settings,
    names,
)
from phinetune.settings.generate import GenerateSettings
from phinetune.settings.loading import load
from phinetune.settings.lora import LoraSettings
from phinetune.settings.train import TrainSettings

__all__ = [
    "DEFAULT_MODEL",
    "DEFAULT_TEMPLATE",
    "EMBEDDED_MODEL",
    "MODEL_RECIPES",
    "PRESETS",
    "SHORT_NAMES",
    "DataSettings",
    "GenerateSettings",
    "LoraSettings",
    "Overrides",
    "Settings",
    "TrainSettings",
    "load",
    "names",
]
