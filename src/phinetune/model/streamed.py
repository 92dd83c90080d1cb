"""A model whose weights stay on the disk: each is read when its module is called, and let go of behind it.

    ids ─► embed_tokens ─► q_proj ─► … ─► lm_head ─► logits           in fp32, by transformers' and PEFT's own forward
              ▲ rows of model.safetensors | base.gguf

One matrix is in memory at a time, beside the adapter and what the model computes. Every call reads all the weights
anew, so that this is for a few long rows and not for writing answers of many words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel

from phinetune.model import lora
from phinetune.model.device import bound_kernel_caches
from phinetune.model.merge import Rows
from phinetune.model.stored import open_stored

_PIECE = 1 << 20  # numbers that are read at a time


@dataclass(frozen=True)
class StreamedModel:
    """A model in fp32 that is called like any other, on the CPU, and its tokenizer."""

    model: PreTrainedModel | PeftModel
    tokenizer: Any


def streamed_model(path: Path, adapter: Path | None, *, allow_bin: bool = False) -> StreamedModel | None:
    """The model in the folder or .gguf file `path`, with the adapter of the folder `adapter` on it.

    None where its files do not name the weights as transformers does, or it needs more than its files hold. Raises
    ModelError for a model or an adapter that cannot be read, and for an adapter of another model.
    """
    bound_kernel_caches()
    opened = open_stored(path)
    if opened is None or opened.weights is None:
        return None
    model, weights = opened.model, opened.weights
    if not _computed_too(model):
        return None
    names = {parameter: name for name, parameter in model.named_parameters()}
    adapted = model if adapter is None else lora.load_adapter(model, adapter, allow_bin=allow_bin)
    _read_when_called(adapted, {parameter: weights[name] for parameter, name in names.items()})
    return StreamedModel(adapted.eval(), opened.tokenizer)


def _computed_too(model: PreTrainedModel) -> bool:
    """Make what is computed and not stored: the rotary frequencies. False where there is more."""
    rotary = getattr(model.base_model, "rotary_emb", None)
    if rotary is not None:
        model.base_model.rotary_emb = type(rotary)(model.config)
    return not any(buffer.is_meta for buffer in model.buffers())


def _read_when_called(model: torch.nn.Module, weights: Mapping[torch.nn.Parameter, Rows]) -> None:
    """`weights`: how to read each parameter of the base model, which is on the device meta."""
    layers = {module: module.get_base_layer() for module in model.modules() if isinstance(module, BaseTunerLayer)}
    for module in set(model.modules()) - set(layers.values()):
        owner = layers.get(module, module)  # DoRA looks at its layer's weight itself
        if own := {name: each for name, each in owner.named_parameters(recurse=False) if each in weights}:
            module.register_forward_pre_hook(partial(_fill, owner, {name: weights[own[name]] for name in own}, own))
            module.register_forward_hook(partial(_empty, owner, own), always_call=True)


def _fill(owner: torch.nn.Module, rows: Mapping[str, Rows], own: Mapping[str, torch.nn.Parameter], *_: Any) -> None:
    for name, parameter in own.items():
        setattr(owner, name, torch.nn.Parameter(_whole(rows[name], parameter.shape), requires_grad=False))


def _empty(owner: torch.nn.Module, own: Mapping[str, torch.nn.Parameter], *_: Any) -> None:
    for name, parameter in own.items():
        setattr(owner, name, parameter)


def _whole(rows: Rows, shape: torch.Size) -> torch.Tensor:
    """The parameter in fp32, read some rows at a time: its form on the disk is never whole in memory beside it."""
    weight = torch.empty(shape)
    many = max(1, _PIECE // prod(shape[1:]))
    for start in range(0, shape[0], many):
        weight[start : start + many] = rows(start, min(start + many, shape[0]))
    return weight
