"""How a setting is declared: once, with its name, default, bounds, help, and what it does."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def setting(
    default: Any, help: str, *, more: str, less: str, when: str, also: tuple[str, ...] = (), **bounds: Any
) -> Any:
    """A field with its words. `help` is the one line of `--help`; `more` and `less` say what comes of raising and
    lowering it (of changing it and leaving it as it is, where it is no amount); `when` says when to touch it; `also`
    are other names that people know it by, or what it is a part of.
    """
    words: dict[str, Any] = {"more": more, "less": less, "when": when, "also": list(also)}
    return Field(default, description=help, json_schema_extra=words, **bounds)


class Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
