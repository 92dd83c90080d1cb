"""A tuned model -> one ordinary folder without an adapter, which plain transformers loads.

merged/  config.json  generation_config.json  model-00001-of-00002.safetensors …  tokenizer  README.md
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from phinetune.errors import RunError
from phinetune.model.merge import MergedTensor
from phinetune.recipe import Recipe
from phinetune.run_folder import atomic_folder

_SHARD_BYTES = 1 << 30
_SPARE = 1.02  # of the disk: headers, tokenizer, card


def write_merged(
    folder: Path,
    tensors: Iterable[MergedTensor],
    architecture: str,
    config: Any,
    generation_config: Any,
    recipe: Recipe,
    companions: Sequence[Path],
    dtype: torch.dtype,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> None:
    """Write the merged model of the class `architecture` in `dtype`, with its recipe and copies of the `companions`:
    tokenizer files and card.

    `on_progress(bytes written, bytes in all)` is called after every shard. Raises RunError when the disk is too small,
    before anything is written.
    """
    tensors = list(tensors)
    sizes = [dtype.itemsize * _count(tensor) for tensor in tensors]
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
            weights = {tensor.name: tensor.make().to(dtype).contiguous() for tensor in shard}
            save_file(weights, temporary / name, metadata={"format": "pt"})
            index |= dict.fromkeys(weights, name)
            written += sum(weight.numel() * weight.element_size() for weight in weights.values())
            on_progress(written, sum(sizes))
        if len(shards) > 1:
            listing = {"metadata": {"total_size": sum(sizes)}, "weight_map": index}
            (temporary / "model.safetensors.index.json").write_text(json.dumps(listing, indent=2), encoding="utf-8")
        plain = type(config).from_dict(config.to_dict())
        plain.dtype, plain.architectures = dtype, [architecture]
        plain.save_pretrained(temporary)
        # Not save_pretrained: it refuses settings of base models that loading takes, such as a temperature alone.
        (temporary / "generation_config.json").write_text(generation_config.to_json_string(), encoding="utf-8")
        recipe.write(temporary)
        for file in companions:
            shutil.copyfile(file, temporary / file.name)


def require_space(place: Path, wanted: int) -> None:
    """Raises RunError when the disk of `place` has less than `wanted` bytes left."""
    there = next(parent for parent in (place, *place.absolute().parents) if parent.exists())
    if (free := shutil.disk_usage(there).free) < wanted:
        raise RunError(
            f"{place} needs {wanted / 1e9:.1f} GB, and its disk has {free / 1e9:.1f} GB left.",
            "Free some space, or choose another place with --to.",
        )


def _count(tensor: MergedTensor) -> int:
    count = 1
    for side in tensor.shape:
        count *= side
    return count
