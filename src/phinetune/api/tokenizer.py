"""The tokenizer of a base model that is on this machine, without its weights."""

from __future__ import annotations

from typing import Any

from phinetune.errors import ModelError
from phinetune.model.gguf_file import open_gguf
from phinetune.model.gguf_tokenizer import read_tokenizer
from phinetune.model.load import find, folder_tokenizer


def load_tokenizer(spec: str) -> Any:
    """The tokenizer of the model that `spec` names: a folder, a .gguf file or the embedded model.

    Raises ModelError when there is none, or it cannot be read.
    """
    path = find(spec)
    if path.is_file():
        return _with_end(read_tokenizer(open_gguf(path)), spec)
    return _with_end(folder_tokenizer(path), spec)


def _with_end(tokenizer: Any, spec: str) -> Any:
    if tokenizer.eos_token_id is None:
        raise ModelError(f"The tokenizer of {spec} has no end-of-text token.", "Choose another base model.")
    return tokenizer
