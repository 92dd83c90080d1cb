"""What a base model is, whatever it is called and wherever it lies: a few short digests of its files.

    /tmp/x/base, ./base, the same model of the hub  ->  {"config": "5f0e…", "tokenizer": "91c2…", "weights": "07ab…"}
    base.gguf                                       ->  {"weights": "c3d1…"}

Of weights only a sample is read: 5.6 GB take 1,400 small blocks, and models that differ do so nearly everywhere.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from phinetune.errors import ModelError
from phinetune.model.folder import weight_files

_TOKENIZER = (
    "added_tokens.json", "merges.txt", "special_tokens_map.json", "tokenizer.json", "tokenizer.model",
    "tokenizer_config.json", "vocab.json", "vocab.txt",
)  # fmt: skip
_OF_THE_WRITER = (
    "_name_or_path",
    "transformers_version",
    "torch_dtype",
    "dtype",
)  # not of the model: a copy may differ
_HEAD = 1 << 20  # bytes that are read whole: names and shapes stand there, and small models are no longer
_BLOCK, _STRIDE = 1 << 12, 1 << 22  # a block is read of every so many bytes
_LETTERS = 12  # of a digest


def identify(path: Path) -> dict[str, str]:
    """Digests of the parts of the model in a folder or .gguf file; two that are alike are the same model.

    What a folder lacks is left out. Raises ModelError when its index of weights is damaged, or a file cannot be read.
    """
    try:
        return _identify(path)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}.", "Download it again.") from None


def _identify(path: Path) -> dict[str, str]:
    if path.is_file():
        return {"weights": _digest([_sample(path)])}
    tokenizer = [name for name in _TOKENIZER if (path / name).is_file()]
    parts = {
        "config": [_settings(file) for file in [path / "config.json"] if file.is_file()],
        "tokenizer": [part for name in tokenizer for part in (name.encode(), (path / name).read_bytes())],
        "weights": [_sample(file) for file in weight_files(path) if file.is_file()],
    }
    return {name: _digest(found) for name, found in parts.items() if found}


def _settings(file: Path) -> bytes:
    """The settings of config.json in one form, however they were written."""
    written = file.read_bytes()
    try:
        values = json.loads(written)
        kept = {name: value for name, value in values.items() if name not in _OF_THE_WRITER}
        return json.dumps(kept, sort_keys=True).encode()
    except (ValueError, AttributeError, RecursionError):
        return written  # loading it says what is wrong


def _sample(file: Path) -> bytes:
    """The size of the file, its first bytes and its last, and blocks in between at even distances."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        size = file.stat().st_size
        digest.update(b"%d" % size)
        digest.update(stream.read(_HEAD))
        for place in [*range(_STRIDE, size, _STRIDE), max(0, size - _BLOCK)]:
            stream.seek(place)
            digest.update(stream.read(_BLOCK))
    return digest.digest()


def _digest(parts: list[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.hexdigest()[:_LETTERS]
