"""A settings file -> plain values: the part of YAML that settings need, and nothing that could explode.

    lora:              ->  {"lora": {"r": 32}}
      r: 32

YAML lets ten lines stand for a billion values (anchors), nest without end, make Python objects (tags) and say a name
twice. Settings do none of these, so they are refused where they stand, before anything is built from them.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from phinetune.errors import SettingsError

_MOST_BYTES = 1 << 17  # 300 kB of one number in base 60 took 4 s
_MOST_LEVELS = 12
_HINT = "Write one `name: value` a line, groups indented below data:, lora:, train:, generate:."


class _Refused(yaml.YAMLError):
    """What is valid YAML and no settings file. `line` counts from 0."""

    def __init__(self, problem: str, mark: Any) -> None:
        super().__init__(problem)
        self.problem, self.problem_mark = problem, mark


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            name = getattr(key, "value", None)
            if isinstance(name, str):
                if name in seen:
                    raise _Refused(f"{name[:60]} stands there twice", key.start_mark)
                seen.add(name)
        return super().construct_mapping(node, deep)


def read_settings_file(path: Path) -> dict[str, Any]:
    """The values in the file. Raises SettingsError when it cannot be read or is no settings file, with the line."""
    try:
        about = path.stat()
        if not path.is_file():
            raise SettingsError(f"{path} is no file.", "Check the name after --config.")
        if about.st_size > _MOST_BYTES:
            raise SettingsError(f"{path} has {about.st_size >> 10:,} KiB: that is no settings file.", _HINT)
        value = parse(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingsError(
            f"The settings file {path} cannot be read: {reason}.", "Check the name after --config."
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        why = f": {error}" if isinstance(error, _Refused) else ""
        raise SettingsError(f"The settings file {path}{where} is not valid{why or ' YAML'}.", _HINT) from None
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise SettingsError(
            f"The settings file {path} holds no settings.",
            "Write groups like `lora:` with indented `r: 32` lines below.",
        )
    return value


def parse(text: str) -> Any:
    """The value that the text stands for. Raises yaml.YAMLError where it is no YAML, or of the refused kinds."""
    levels = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise _Refused("anchors (& and *) are not taken", event.start_mark)
            if (tag := getattr(event, "tag", None)) is not None:
                raise _Refused(f"the tag {tag[:60]} is not taken", event.start_mark)
            if isinstance(event, yaml.ScalarEvent) and any("\ud800" <= letter <= "\udfff" for letter in event.value):
                raise _Refused("an escape stands for half a letter", event.start_mark)
            levels += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if levels > _MOST_LEVELS:
                raise _Refused(f"more than {_MOST_LEVELS} levels within each other", event.start_mark)
        return yaml.load(text, Loader=_Loader)
    except (ValueError, TypeError, OverflowError) as error:
        # A day that no month has, a number of more digits than Python reads.
        raise _Refused(f"a value cannot be read ({str(error)[:60]})", None) from None
