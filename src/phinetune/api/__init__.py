"""The public functions: composition of the rooms, one module a verb.

What needs torch is loaded when it is first used: `check` counts tokens with it only when a model is named, `train`
begins only when there is a sheet.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phinetune.api.tokenizer import load_tokenizer
    from phinetune.api.tuning import tune

_HOME = {"load_tokenizer": "phinetune.api.tokenizer", "tune": "phinetune.api.tuning"}

__all__ = ["load_tokenizer", "tune"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'phinetune.api' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
