"""A .gguf file -> its metadata and, row by row, its weights as float32. Nothing is read before it is asked for.

    magic, version, counts | metadata: key, type, value ... | tensors: name, shape, kind, offset ... | weights

The header is read here and not by `gguf.GGUFReader`, which makes an array object per token and so takes 4.3 s for
the 49,152 tokens and 48,900 merges of SmolLM2; this takes 0.15 s, and can tell a damaged file from a foreign one.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from phinetune.errors import ModelError

Floats = npt.NDArray[np.float32]

_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_LENGTH = struct.Struct("<Q")
_MOST_DIMENSIONS = 4
_AGAIN = "Download it again, or convert the model again with llama.cpp."


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies and how it is packed. `shape` counts as NumPy does: rows first."""

    name: str
    shape: tuple[int, ...]
    kind: gguf.GGMLQuantizationType
    start: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def row_shape(self) -> tuple[int, ...]:
        """What one row holds: a vector of n numbers counts as n rows of one."""
        return self.shape[1:]

    @property
    def row_bytes(self) -> int:
        block, block_bytes = gguf.GGML_QUANT_SIZES[self.kind]
        return int(math.prod(self.row_shape) // block * block_bytes)

    @property
    def stop(self) -> int:
        return self.start + self.shape[0] * self.row_bytes


@dataclass(frozen=True)
class GgufFile:
    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, StoredTensor]

    def rows(self, name: str, first: int, last: int) -> Floats:
        """Rows `first` to `last` (not included) of a tensor: (last - first, ...) in float32.

        Read into memory of its own: what a memory map has read stays counted as ours.
        """
        tensor = self.tensors[name]
        count, start = (last - first) * tensor.row_bytes, tensor.start + first * tensor.row_bytes
        packed = np.fromfile(self.path, np.uint8, count, offset=start)
        # As one long row: `gguf` works through rows in groups of 16, which for narrow rows is mostly overhead.
        numbers = gguf.dequantize(packed.reshape(1, -1), tensor.kind)
        shaped: Floats = numbers.reshape(last - first, *tensor.row_shape)
        return shaped


def open_gguf(path: Path) -> GgufFile:
    """Read the header of `path`.

    Raises ModelError when the file is missing, foreign, damaged, cut short, one part of several, or packed in a
    way that cannot be unpacked.
    """
    try:
        raw = np.memmap(path, mode="r", dtype=np.uint8) if path.stat().st_size else np.empty(0, np.uint8)
    except OSError as error:
        raise ModelError(
            f"{path} cannot be opened: {error.strerror or error}.", "Give the path of a .gguf file."
        ) from None
    _check_is_gguf(path, raw[:8].tobytes())
    try:
        metadata, tensors = _read_header(_Cursor(raw.data, position=8))
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"The header of {path} is damaged or cut short: {error}.", _AGAIN) from None
    _check_is_whole(path, metadata, tensors, len(raw))
    return GgufFile(path, metadata, tensors)


def _check_is_gguf(path: Path, head: bytes) -> None:
    if head[:4] != b"GGUF" or len(head) < 8:
        what = "is empty" if not head else "is not a GGUF file"
        raise ModelError(f"{path} {what}: it does not begin with the letters GGUF.", "Give a .gguf model file.")
    (version,) = struct.unpack("<I", head[4:])
    if version not in _VERSIONS:
        swapped = version & 0xFFFF == 0
        found = "a big-endian file" if swapped else f"GGUF version {version}"
        raise ModelError(
            f"{path} is {found}; versions {' and '.join(map(str, _VERSIONS))} in little-endian order can be read.",
            "Convert the model again with a current llama.cpp.",
        )


def _check_is_whole(path: Path, metadata: dict[str, Any], tensors: dict[str, StoredTensor], size: int) -> None:
    parts = metadata.get("split.count", 1)
    if parts != 1:
        raise ModelError(
            f"{path} is one of {parts} parts of a model.",
            "Join them first: llama-gguf-split --merge FIRST_PART.gguf whole.gguf",
        )
    end = max((tensor.stop for tensor in tensors.values()), default=0)
    if end > size:
        raise ModelError(
            f"{path} is cut short: it has {size:,} bytes of the {end:,} that its header announces.",
            "The download was probably interrupted: download it again.",
        )
    for kind in {tensor.kind for tensor in tensors.values()}:
        _, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        try:
            gguf.dequantize(np.zeros((1, block_bytes), np.uint8), kind)
        except NotImplementedError:
            raise ModelError(
                f"{path} holds weights packed as {kind.name}, which cannot be unpacked.",
                "Get the model in a common packing such as Q4_K_M, Q8_0 or F16.",
            ) from None


@dataclass
class _Cursor:
    """Takes values one after the other; struct.error or ValueError where the bytes end too early."""

    data: memoryview
    position: int

    def take(self, format: str) -> Any:
        (value,) = struct.unpack_from("<" + format, self.data, self.position)
        self.position += struct.calcsize("<" + format)
        return value

    def count(self, smallest: int) -> int:
        """A number of things of `smallest` bytes or more that follow: never more than the file has room for."""
        number: int = _LENGTH.unpack_from(self.data, self.position)[0]
        self.position += _LENGTH.size
        if number * smallest > len(self.data) - self.position:
            raise ValueError(f"{number:,} entries are announced at byte {self.position - 8:,}, more than fit")
        return number

    def string(self) -> str:
        length = self.count(1)
        self.position += length
        return str(self.data[self.position - length : self.position], "utf-8")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.array()
        return self.take(_SCALARS[kind])

    def array(self) -> list[Any]:
        kind = self.take("I")
        if kind == _ARRAY:
            raise ValueError("lists within lists, which no model has")
        if kind not in _SCALARS:
            return [self.value(kind) for _ in range(self.count(8))]
        numbers = self.count(struct.calcsize("<" + _SCALARS[kind]))
        format = f"<{numbers}{_SCALARS[kind]}"
        found = struct.unpack_from(format, self.data, self.position)
        self.position += struct.calcsize(format)
        return list(found)


def _read_header(cursor: _Cursor) -> tuple[dict[str, Any], dict[str, StoredTensor]]:
    tensor_count, key_count = cursor.count(24), cursor.count(13)
    metadata: dict[str, Any] = {}
    for _ in range(key_count):
        key = cursor.string()
        metadata[key] = cursor.value(cursor.take("I"))
    found = [_read_tensor(cursor) for _ in range(tensor_count)]
    alignment = metadata.get("general.alignment", gguf.GGUF_DEFAULT_ALIGNMENT)
    if alignment <= 0 or alignment & (alignment - 1):
        raise ValueError(f"an alignment of {alignment} is not a power of two")
    weights = -(-cursor.position // alignment) * alignment
    tensors = {name: StoredTensor(name, shape, kind, weights + at) for name, shape, kind, at in found}
    if len(tensors) < len(found):
        raise ValueError("two tensors have the same name")
    return metadata, tensors


def _read_tensor(cursor: _Cursor) -> tuple[str, tuple[int, ...], gguf.GGMLQuantizationType, int]:
    name, dimensions = cursor.string(), cursor.take("I")
    if not 1 <= dimensions <= _MOST_DIMENSIONS:
        raise ValueError(f"tensor {name} has {dimensions} dimensions")
    # The file counts as ggml does, the fastest-moving dimension first.
    shape = tuple(cursor.take("Q") for _ in range(dimensions))[::-1]
    number = cursor.take("I")
    if number not in set(gguf.GGMLQuantizationType):
        raise ValueError(f"tensor {name} is packed in the way number {number}, which is not known here")
    kind = gguf.GGMLQuantizationType(number)
    block, _ = gguf.GGML_QUANT_SIZES[kind]
    if not all(shape) or math.prod(shape[1:]) % block:
        raise ValueError(f"tensor {name} of shape {shape} cannot be packed as {kind.name}")
    return name, shape, kind, cursor.take("Q")
