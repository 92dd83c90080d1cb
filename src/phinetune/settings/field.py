"""How a setting is declared: once, with its name, default, bounds, help, and what it does."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def setting(default: Any, help: str, *, more: str, less: str, when: str, **bounds: Any) -> Any:
    """A field with its words. `help` is the one line of `--help`; `more` and `less` say what comes of raising and
    lowering it (of changing it and leaving it as it is, where it is no amount); `when` says when to touch it.
    """
    return Field(default, description=help, json_schema_extra={"more": more, "less": less, "when": when}, **bounds)


class Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
