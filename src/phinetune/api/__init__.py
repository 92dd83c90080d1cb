"""The public functions: composition of the rooms, one module a verb.

What needs torch is loaded when it is first used: `check` counts tokens with it only when a model is named.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phinetune.api.tokenizer import load_tokenizer

__all__ = ["load_tokenizer"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'phinetune.api' has no attribute {name!r}")
    return getattr(importlib.import_module("phinetune.api.tokenizer"), name)
