"""A model folder before anything is built from it: do its files fit each other?

    config.json        40 layers of 2560      ─┐
    *.safetensors      what lies in the files ─┴─►  their names, or what is wrong

A configuration of a billion layers costs a line to write, and building it all memory and all time.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from phinetune.errors import ModelError, PhinetuneError
from phinetune.model.out_of_memory import is_out_of_memory

INDEX = "model.safetensors.index.json"
_MOST_HEADER = 100 << 20  # bytes, the limit of safetensors itself
_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_AGAIN = "Download it again."


def weight_files(path: Path) -> list[Path]:
    """The safetensors files of the folder, those that its index names where there is one.

    Raises ModelError for an index that is damaged or names a file somewhere else.
    """
    if not (path / INDEX).is_file():
        return sorted(path.glob("*.safetensors"))
    listed = read_json(path / INDEX).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
        raise ModelError(f"{path / INDEX} is damaged: it lists no files.", _AGAIN)
    names = sorted(set(listed.values()))
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelError(f"{path / INDEX} names {name[:100]!r}, which is no file of this folder.", _AGAIN)
    if missing := [name for name in names if not (path / name).is_file()]:
        raise ModelError(f"{path} is incomplete: {missing[0]} is missing.", _AGAIN)
    return [path / name for name in names]


def check_folder(path: Path) -> None:
    """Raises ModelError when config.json asks for more than the weights in the folder can be."""
    config = read_json(path / "config.json")
    shapes = {name: shape for file in weight_files(path) for name, shape in tensor_shapes(file).items()}
    numbers = sum(map(math.prod, shapes.values()))
    sizes = {name: config.get(name) for name in _SIZES}
    for name, value in sizes.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 32):
            raise _lies(path, f"{name} is {_short(value)}")
    layers, width, vocabulary = (sizes[name] or 1 for name in ("num_hidden_layers", "hidden_size", "vocab_size"))
    # Every layer has a tensor of its own at least, and a matrix of its width; words have a row each.
    if layers > len(shapes) or layers * width**2 > 64 * numbers or vocabulary * width > 64 * numbers:
        raise _lies(path, f"it asks for {layers:,} layers of {width:,} and {vocabulary:,} tokens")


def tensor_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor in a safetensors file, from its header. Raises ModelError when that is damaged."""
    try:
        with file.open("rb") as stream:
            [length] = struct.unpack("<Q", stream.read(8))
            if length > min(_MOST_HEADER, file.stat().st_size):
                raise ValueError("its header is longer than it is")
            entries = json.loads(stream.read(length))
        entries.pop("__metadata__", None)
        shapes = {name: tuple(map(int, entry["shape"])) for name, entry in entries.items()}
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
        struct.error,
    ) as error:
        raise ModelError(f"{file} is damaged: {str(error)[:200]}.", _AGAIN) from None
    if any(size < 0 for shape in shapes.values() for size in shape):
        raise ModelError(f"{file} is damaged: a tensor of a negative size.", _AGAIN)
    return shapes


def read_json(path: Path) -> dict[str, Any]:
    """The record in a JSON file. Raises ModelError when it is missing or damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is damaged: {str(error)[:200]}.", _AGAIN) from None
    if not isinstance(values, dict):
        raise ModelError(f"{path} is damaged: it holds no settings.", _AGAIN)
    return values


@contextmanager
def damage_in(path: Path) -> Iterator[None]:
    """What transformers raises of a file that somebody else wrote, as a ModelError: it checks little beforehand."""
    try:
        yield
    except PhinetuneError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"The model in {path} cannot be loaded: {lines[0][:200]}", _AGAIN) from None


def _lies(path: Path, what: str) -> ModelError:
    return ModelError(f"{path / 'config.json'} does not fit the weights beside it: {what}.", _AGAIN)


def _short(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 200:
        return "a number without end"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]} …"
