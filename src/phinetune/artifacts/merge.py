"""A tuned model -> one ordinary folder without an adapter, which plain transformers loads.

merged/  config.json  generation_config.json  model-00001-of-00002.safetensors …  tokenizer  README.md
"""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from phinetune.errors import RunError
from phinetune.model.merge import MergedTensor
from phinetune.recipe import Recipe
from phinetune.run_folder import atomic_folder

_SHARD_BYTES = 1 << 30
_PIECE = 1 << 22  # numbers that are merged and written together
_TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
_SPARE = 1.02  # of the disk: headers, tokenizer, card


@dataclass(frozen=True)
class Companions:
    """What a model needs to be asked: its recipe, files of the tokenizer that are copied, the training prompt as a chat
    template, which takes the place of the base model's own, and the text of its card.
    """

    recipe: Recipe
    files: Sequence[Path]
    chat_template: str
    card: str


def write_merged(
    folder: Path,
    tensors: Iterable[MergedTensor],
    architecture: str,
    config: Any,
    generation_config: Any,
    beside: Companions,
    dtype: torch.dtype,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> None:
    """Write the merged model of the class `architecture` in `dtype`, with what belongs beside it.

    `on_progress(bytes written, bytes in all)` is called after every tensor. Raises RunError when the disk is too small,
    before anything is written. No more than a few megabytes of the merged weights are in memory at a time.
    """
    tensors = list(tensors)
    sizes = [dtype.itemsize * math.prod(tensor.shape) for tensor in tensors]
    require_space(folder, int(sum(sizes) * _SPARE))
    shards: list[list[MergedTensor]] = []
    filled = _SHARD_BYTES
    for tensor, size in zip(tensors, sizes, strict=True):
        if filled + size > _SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += size
    with atomic_folder(folder) as temporary:
        written = 0
        index: dict[str, str] = {}
        for number, shard in enumerate(shards, start=1):
            name = f"model-{number:05}-of-{len(shards):05}.safetensors" if len(shards) > 1 else "model.safetensors"
            for size in write_safetensors(temporary / name, shard, dtype):
                written += size
                on_progress(written, sum(sizes))
            index |= {tensor.name: name for tensor in shard}
        if len(shards) > 1:
            listing = {"metadata": {"total_size": sum(sizes)}, "weight_map": index}
            (temporary / "model.safetensors.index.json").write_text(json.dumps(listing, indent=2), encoding="utf-8")
        plain = type(config).from_dict(config.to_dict())
        plain.dtype, plain.architectures = dtype, [architecture]
        plain.save_pretrained(temporary)
        # Not save_pretrained: it refuses settings of base models that loading takes, such as a temperature alone.
        (temporary / "generation_config.json").write_text(generation_config.to_json_string(), encoding="utf-8")
        beside.recipe.write(temporary)
        for file in beside.files:
            shutil.copyfile(file, temporary / file.name)
        _set_chat_template(temporary, beside.chat_template)
        (temporary / "README.md").write_text(beside.card, encoding="utf-8")


def _set_chat_template(folder: Path, template: str) -> None:
    """In the file that transformers reads it from, and nowhere else: some programs look there second."""
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    path = folder / "tokenizer_config.json"
    if path.is_file():
        config = json.loads(path.read_text(encoding="utf-8"))
        if config.pop("chat_template", None) is not None:
            path.write_text(json.dumps(config, indent=2, ensure_ascii=False), encoding="utf-8")


def write_safetensors(path: Path, tensors: Sequence[MergedTensor], dtype: torch.dtype) -> Iterator[int]:
    """Write a safetensors file (https://github.com/huggingface/safetensors#format) some rows at a time: the package
    itself wants all tensors of a file in memory. Yields the bytes of each tensor once it is written.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        begin, end = end, end + dtype.itemsize * math.prod(tensor.shape)
        header[tensor.name] = {"dtype": _TYPES[dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            rows = max(1, _PIECE // math.prod(tensor.shape[1:]))
            for start in range(0, tensor.shape[0], rows):
                piece = tensor.rows(start, min(start + rows, tensor.shape[0])).to(dtype)
                file.write(piece.contiguous().view(torch.uint8).numpy().data)
            yield dtype.itemsize * math.prod(tensor.shape)


def require_space(place: Path, wanted: int) -> None:
    """Raises RunError when the disk of `place` has less than `wanted` bytes left."""
    there = next(parent for parent in (place, *place.absolute().parents) if parent.exists())
    if (free := shutil.disk_usage(there).free) < wanted:
        raise RunError(
            f"{place} needs {wanted / 1e9:.1f} GB, and its disk has {free / 1e9:.1f} GB left.",
            "Free some space, or choose another place with --to.",
        )
