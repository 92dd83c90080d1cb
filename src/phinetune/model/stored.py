"""A model as it lies on the disk: its weights with the adapter in them, read some rows at a time.

    model.safetensors | base.gguf   ─►  rows of one weight in fp32  + s B A  ─►  whoever writes them elsewhere

Writing Phi-2 (2.7 billion numbers) as .gguf this way takes little more memory than its adapter; loaded whole in fp32
it would be eleven gigabytes.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from phinetune.errors import ModelError
from phinetune.model.adapter_config import read_adapter_config
from phinetune.model.folder import damage_in, weight_files
from phinetune.model.gguf_base import gguf_generation, stored_weights
from phinetune.model.gguf_config import read_config, refuse_absurd
from phinetune.model.gguf_file import open_gguf
from phinetune.model.gguf_tokenizer import read_tokenizer
from phinetune.model.load import folder_config, folder_tokenizer, switch_off_dropout
from phinetune.model.lora import fitting_weights
from phinetune.model.merge import MergedTensor, Rows, with_adapter

_PREFIX = "base_model.model."
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
# The number formats of the safetensors files that models come in.
_TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class StoredModel:
    """A model that is read weight by weight. `model` is what it is made of, whose own weights are not looked at."""

    model: PreTrainedModel
    tokenizer: Any
    tensors: list[MergedTensor]

    @property
    def config(self) -> Any:
        return self.model.config


def stored_model(path: Path, adapter: Path | None, *, allow_bin: bool = False) -> StoredModel | None:
    """The model in the folder or .gguf file `path`, with the adapter of the folder `adapter` in it.

    None where its files do not name the weights as transformers does, or the adapter is of a kind that is not merged
    here: then it has to be loaded whole. Raises ModelError for an adapter that cannot be read, or whose layers are not
    those that its configuration names in this model, one for one.
    """
    opened = open_stored(path)
    if opened is None:
        return None
    model, weights = opened.model, opened.weights
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    changes = {} if adapter is None else _changes(model, adapter, allow_bin)
    if weights is None or changes is None or not all(_fits(shapes.get(name), *changes[name]) for name in changes):
        return None
    tensors = [
        MergedTensor(name, shape, with_adapter(weights[name], *changes[name]) if name in changes else weights[name])
        for name, shape in shapes.items()
    ]
    return StoredModel(model, opened.tokenizer, tensors)


@dataclass(frozen=True)
class OpenedModel:
    """A model on the device meta, and how to read each of its parameters; None where its files name them otherwise."""

    model: PreTrainedModel
    tokenizer: Any
    weights: dict[str, Rows] | None


def open_stored(path: Path) -> OpenedModel | None:
    """The model in the folder or .gguf file `path`; None where there is none.

    Raises ModelError for files that are damaged or do not fit each other.
    """
    if path.is_file():
        file = open_gguf(path)
        config, tokenizer = read_config(file), read_tokenizer(file)
        refuse_absurd(file, config)
    elif (path / "config.json").is_file():
        config, tokenizer = folder_config(path), folder_tokenizer(path)
    else:
        return None
    with damage_in(path), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    switch_off_dropout(model)
    if path.is_file():
        model.generation_config = gguf_generation(file, config)
        return OpenedModel(model, tokenizer, stored_weights(path, model))
    if (path / "generation_config.json").is_file():
        with damage_in(path):
            model.generation_config = GenerationConfig.from_pretrained(path)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    return OpenedModel(model, tokenizer, _in_folder(path, shapes))


def _in_folder(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, Rows] | None:
    """How to read every parameter; None when one is missing or has another shape."""
    found: dict[str, Rows] = {}
    for file in weight_files(path):
        with damage_in(file), safe_open(file, "pt") as tensors:
            header, begin = _header(file)
            for name in tensors.keys():  # noqa: SIM118 (no mapping, though it looks like one)
                lies = tensors.get_slice(name)
                if tuple(lies.get_shape()) == shapes.get(name) and lies.get_dtype() in _TYPES:
                    found[name] = _reader(file, header[name], begin)
    return found if found.keys() >= shapes.keys() else None


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """What lies where in a safetensors file, and where its numbers begin. `safe_open` has checked it."""
    with file.open("rb") as stream:
        [length] = struct.unpack("<Q", stream.read(8))
        return json.loads(stream.read(length)), 8 + length


def _reader(file: Path, entry: dict[str, Any], begin: int) -> Rows:
    """Reads into memory of its own: what a memory map has read stays counted as ours."""
    dtype, shape = _TYPES[entry["dtype"]], entry["shape"]
    row = dtype.itemsize * math.prod(shape[1:])
    begin += entry["data_offsets"][0]

    def rows(start: int, stop: int) -> torch.Tensor:
        weight = torch.empty(stop - start, *shape[1:], dtype=dtype)
        with file.open("rb", buffering=0) as stream:
            stream.seek(begin + start * row)
            if stream.readinto(weight.view(torch.uint8).numpy().data) != weight.nbytes:
                raise ModelError(f"{file} ends before its weights do.", "The file is damaged: get it again.")
        return weight.to(torch.float32)

    return rows


def _changes(
    model: PreTrainedModel, adapter: Path, allow_bin: bool
) -> dict[str, tuple[torch.Tensor, torch.Tensor, float]] | None:
    """(A, B, scaling) by the parameter that they change; None for an adapter that is more than plain LoRA.

    `model` is the base model on the device meta, which gets the adapter.
    """
    config = read_adapter_config(adapter)
    if config.use_dora or config.use_rslora or config.rank_pattern or config.alpha_pattern:
        return None
    weights = fitting_weights(model, adapter, allow_bin=allow_bin)
    return {
        f"{name.removeprefix(_PREFIX).removesuffix(_DOWN)}.weight": (
            down.float(),
            weights[name.removesuffix(_DOWN) + _UP].float(),
            config.lora_alpha / config.r,
        )
        for name, down in weights.items()
        if name.endswith(_DOWN)
    }


def _fits(shape: tuple[int, ...] | None, down: torch.Tensor, up: torch.Tensor, _scaling: float) -> bool:
    """Whether a parameter of this shape is W of W + s B A: not one that the model ties to another or keeps turned."""
    return shape == (len(up), down.shape[1])
