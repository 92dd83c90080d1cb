"""Settings from all their sources, laid over each other in this order, the later one winning:

defaults < what suits the base model < preset < --config file < flags < --set
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from phinetune.errors import SettingsError
from phinetune.settings.declared import DEFAULT_MODEL, MODEL_RECIPES, PRESETS, SHORT_NAMES, Settings, names
from phinetune.settings.yaml_file import parse, read_settings_file

_MOST_PROBLEMS = 20
_LONGEST_NAME, _LONGEST_VALUE = 60, 120  # characters of what is wrong, in a message


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
    refused: list[Any] = []
    by_hand: dict[str, Any] = {}
    if config is not None:
        _overlay(by_hand, read_settings_file(Path(config)))
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
        refused = error.errors(include_url=False)
    if problems or refused:
        wrong = len(problems) + len(refused)
        count = "1 setting is" if wrong == 1 else f"{wrong} settings are"
        # Only what is shown is explained: to look for what each of 20,000 names may have meant takes 6 s.
        problems = [*problems, *map(_explain, refused[:_MOST_PROBLEMS])][:_MOST_PROBLEMS]
        if (more := wrong - _MOST_PROBLEMS) > 0:
            problems.append(f"… and {more:,} more")
        raise SettingsError(
            f"{count} wrong:\n" + "\n".join(f"  {problem}" for problem in problems),
            "--help after the command lists the common settings, `phinetune explain` all of them.",
        )
    return settings


def _yaml_value(text: str) -> Any:
    try:
        value = parse(text)
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
    path = [str(part)[:_LONGEST_NAME] for part in detail["loc"]]
    name = ".".join(path)
    while path and name not in known and detail["type"] != "extra_forbidden":
        path.pop()
        name = ".".join(path)
    name = name or ".".join(str(part)[:_LONGEST_NAME] for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        return f"{name}: there is no such setting" + (f"; did you mean {near[0]}?" if near else "")
    return f"{name} = {_shown(detail['input'])}: {detail['msg'][0].lower()}{detail['msg'][1:]}"


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # a whole number of more digits than Python writes
        return "a number of thousands of digits"
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]} …"
