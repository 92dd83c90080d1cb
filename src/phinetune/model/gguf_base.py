"""A .gguf file that people already have -> an ordinary transformers model and tokenizer, ready for training.

    base.Q4_K_M.gguf  ->  PhiForCausalLM in bf16 + PreTrainedTokenizerFast

The model is first built without memory, then each weight is unpacked some rows at a time into the wanted dtype on
the wanted device: the peak is little more than the finished model.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from phinetune.errors import ModelError
from phinetune.model.gguf_config import ROPE_FACTORS, read_config, refuse_absurd
from phinetune.model.gguf_file import GgufFile, StoredTensor, open_gguf
from phinetune.model.gguf_names import FUSED, FUSED_PARTS, NAMES, TensorNames, deinterleave
from phinetune.model.gguf_tokenizer import read_tokenizer
from phinetune.model.merge import Rows

# Numbers unpacked at a time: they stay in the cache. SmolLM2 to float32: 2.3 s tensor by tensor, 1.3 s like this.
_PIECE = 1 << 18
_END_OF_TURN = ("tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")


def stored_weights(path: Path, model: PreTrainedModel) -> dict[str, Rows]:
    """How to read rows of each parameter of `model` from the file, in fp32; `model` needs no memory of its own.

    Raises ModelError as `load_gguf` does.
    """
    file = open_gguf(path)
    names = NAMES[file.metadata["general.architecture"]]
    return {
        name: _reader(file, source, names, name, model.config) for name, source in _locate(model, file, names).items()
    }


def _reader(file: GgufFile, source: _Source, names: TensorNames, name: str, config: Any) -> Rows:
    head = source.shape[0] // _heads(name, config) if names.is_interleaved(name) else 1

    def rows(start: int, stop: int) -> torch.Tensor:
        first, last = start // head * head, -(-stop // head) * head  # whole heads, whose rows change places
        part = _Source(source.tensor, source.first + first, (last - first, *source.shape[1:]))
        weight = _unpack(file, part, torch.float32, torch.device("cpu"))
        if head > 1:
            weight = deinterleave(weight, len(weight) // head)
        return weight[start - first : stop - first]

    return rows


def _in_our_order(weight: torch.Tensor, names: TensorNames, name: str, config: Any) -> torch.Tensor:
    """llama.cpp keeps the rows of some projections in another order."""
    return deinterleave(weight, _heads(name, config)) if names.is_interleaved(name) else weight


def _heads(name: str, config: Any) -> int:
    """Heads of the projection `name`."""
    return int({"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}[name.split(".")[-2]])


@dataclass(frozen=True)
class GgufSummary:
    """What a file says about itself; None where it says nothing."""

    name: str | None
    architecture: str
    license: str | None
    context_length: int | None
    parameters: int
    packing: str


def load_gguf(
    path: Path, dtype: torch.dtype, device: str | torch.device
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The model in `path`, its weights unpacked to `dtype` on `device`, in evaluation mode, and its tokenizer.

    Raises ModelError that names the file when it is missing, foreign, damaged, incomplete or not supported.
    """
    file = open_gguf(path)
    config = read_config(file)
    refuse_absurd(file, config)
    tokenizer = read_tokenizer(file)
    tokenizer.model_max_length = config.max_position_embeddings
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    _fill(model, file, dtype, torch.device(device))
    # The rotary frequencies are computed, not stored, so they have to be made outside the memoryless build.
    with torch.device(device):
        model.model.rotary_emb = type(model.model.rotary_emb)(config)
    model.tie_weights()
    model.generation_config = gguf_generation(file, config)
    return model.eval(), tokenizer


def gguf_generation(file: GgufFile, config: PreTrainedConfig) -> GenerationConfig:
    """What ends a text of the model, as its file says."""
    ends = dict.fromkeys([config.eos_token_id, *(file.metadata.get(key) for key in _END_OF_TURN)])
    return GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=[id for id in ends if id is not None] or None,
        pad_token_id=config.pad_token_id,
    )


def gguf_summary(path: Path) -> GgufSummary:
    """Name, licence and size of the model in `path`, without reading its weights.

    Raises ModelError when it is not a whole GGUF file.
    """
    file = open_gguf(path)
    sizes: dict[str, int] = {}
    for tensor in file.tensors.values():
        sizes[tensor.kind.name] = sizes.get(tensor.kind.name, 0) + tensor.size
    architecture = file.metadata.get("general.architecture", "unknown")
    return GgufSummary(
        name=file.metadata.get("general.name"),
        architecture=architecture,
        license=file.metadata.get("general.license"),
        context_length=file.metadata.get(f"{architecture}.context_length"),
        parameters=sum(sizes.values()),
        packing=max(sizes, key=sizes.__getitem__, default="none"),
    )


def gguf_note(path: Path, key: str) -> str | None:
    """A text that stands in the header under `key`. Raises ModelError when it is not a whole GGUF file."""
    note = open_gguf(path).metadata.get(key)
    return note if isinstance(note, str) else None


@dataclass(frozen=True)
class _Source:
    """The rows of a stored tensor that make one parameter."""

    tensor: StoredTensor
    first: int
    shape: tuple[int, ...]


def _fill(model: PreTrainedModel, file: GgufFile, dtype: torch.dtype, device: torch.device) -> None:
    """Give every parameter its stored weight. All are found before any is unpacked, so a mismatch costs no wait."""
    names = NAMES[file.metadata["general.architecture"]]
    sources = _locate(model, file, names)

    def unpack(name: str) -> torch.Tensor:
        return _in_our_order(_unpack(file, sources[name], dtype, device), names, name, model.config)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for name, weight in zip(sources, pool.map(unpack, sources), strict=True):
            module, _, kind = name.rpartition(".")
            parameter = torch.nn.Parameter(weight, requires_grad=True)
            setattr(model.get_submodule(module), kind, parameter)


def _locate(model: PreTrainedModel, file: GgufFile, names: TensorNames) -> dict[str, _Source]:
    sources = {}
    for name, parameter in model.named_parameters():
        source = _find(file, names.to_gguf(name), tuple(parameter.shape), model)
        if source is None:
            raise ModelError(
                f"{file.path} has no tensor {names.to_gguf(name)}, which this model needs.",
                "The file is incomplete, or a variant of its architecture that is not supported: "
                "give the original Hugging Face model instead.",
            )
        sources[name] = source
    used = {source.tensor.name for source in sources.values()} | {ROPE_FACTORS}
    if unused := [name for name in file.tensors if name not in used]:
        raise ModelError(
            f"{file.path} has tensors that this model has no place for: {', '.join(unused[:3])}"
            f"{f' and {len(unused) - 3} more' if len(unused) > 3 else ''}.",
            "It is a variant of its architecture that is not supported: give the original Hugging Face model.",
        )
    return sources


def _find(file: GgufFile, name: str, shape: tuple[int, ...], model: PreTrainedModel) -> _Source | None:
    """Where the tensor `name` lies: on its own, or as one part of a fused query-key-value tensor."""
    tensor, first, rows = file.tensors.get(name), 0, shape[0]
    prefix, part, kind = name.rsplit(".", 2) if name.count(".") > 1 else ("", *name.split("."))
    if tensor is None and part in FUSED_PARTS:
        tensor = file.tensors.get(f"{prefix}.{FUSED}.{kind}")
        width = model.config.hidden_size // model.config.num_attention_heads
        query, key = (width * n for n in (model.config.num_attention_heads, model.config.num_key_value_heads))
        first = {"attn_q": 0, "attn_k": query, "attn_v": query + key}[part]
        rows = query + 2 * key
    if tensor is not None and tensor.shape != (rows, *shape[1:]):
        raise ModelError(
            f"{file.path} holds {tensor.name} in the shape {tensor.shape}, where its settings ask for "
            f"{(rows, *shape[1:])}.",
            "The file is damaged or inconsistent: download it again or convert the model again.",
        )
    return _Source(tensor, first, shape) if tensor is not None else None


def _unpack(file: GgufFile, source: _Source, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    weight = torch.empty(source.shape, dtype=dtype, device=device)
    for start, stop in _pieces(source.shape):
        numbers = file.rows(source.tensor.name, source.first + start, source.first + stop)
        # A sum is finite only if every number is, and costs a fraction of looking at each.
        if not np.isfinite(numbers.sum()):
            raise ModelError(
                f"{file.path} has numbers that are not finite in {source.tensor.name}.",
                "The file is damaged: download it again.",
            )
        weight[start:stop].copy_(torch.from_numpy(np.require(numbers, requirements="W")))
    return weight


def _pieces(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    rows = max(1, _PIECE // (int(np.prod(shape[1:])) or 1))
    for start in range(0, shape[0], rows):
        yield start, min(start + rows, shape[0])
