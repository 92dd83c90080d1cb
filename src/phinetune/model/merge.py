"""The adapter added into the base model's weights, one weight at a time: W + s B A in fp32.

DoRA (Liu et al., 2024) gives every row of that a length of its own, m.

The model stays as it is, in memory or on the disk (stored.py): each merged weight exists only while it is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from peft import PeftModel
from peft.tuners.lora.layer import Linear as PeftLinear
from transformers import PreTrainedModel

_WRAPPED = ".base_layer"
Rows: TypeAlias = Callable[[int, int], torch.Tensor]


@dataclass(frozen=True)
class MergedTensor:
    """A parameter of the merged model by its name in transformers.

    `rows(start, stop)` makes some of its rows in fp32 on the CPU, in memory of their own; a vector's are its numbers.
    """

    name: str
    shape: tuple[int, ...]
    rows: Rows

    def make(self) -> torch.Tensor:
        return self.rows(0, self.shape[0])


def merged_tensors(model: PeftModel | PreTrainedModel) -> Iterator[MergedTensor]:
    """Every parameter of the model, with its adapter in it if it has one, in the model's order; tied ones once."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    adapted = {f"{name}.base_layer.weight": m for name, m in base.named_modules() if isinstance(m, PeftLinear)}
    for name, parameter in base.named_parameters():
        if ".lora_" in name:
            continue
        yield MergedTensor(
            name=name.replace(_WRAPPED, ""),
            shape=tuple(parameter.shape),
            rows=_rows(parameter, adapted.get(name)),
        )


def _rows(parameter: torch.Tensor, layer: PeftLinear | None) -> Rows:
    def read(start: int, stop: int) -> torch.Tensor:
        return parameter.detach()[start:stop].to("cpu", torch.float32, copy=True)

    if layer is None:
        return read
    [name] = layer.active_adapters
    down, up = (part[name].weight.detach().float().cpu() for part in (layer.lora_A, layer.lora_B))
    lengths = layer.lora_magnitude_vector[name].weight.detach().float().cpu() if layer.use_dora.get(name) else None
    return with_adapter(read, down, up, layer.scaling[name], lengths)


def with_adapter(
    read: Rows, down: torch.Tensor, up: torch.Tensor, scaling: float, lengths: torch.Tensor | None = None
) -> Rows:
    """The rows of W + s B A, of W's: down is A [r, inputs], up B [outputs, r], both fp32. With `lengths` [outputs] each
    row is stretched to its own.
    """

    @torch.no_grad()
    def rows(start: int, stop: int) -> torch.Tensor:
        merged = read(start, stop).addmm_(up[start:stop], down, alpha=scaling)
        if lengths is None:
            return merged
        return merged.mul_((lengths[start:stop] / merged.norm(dim=1))[:, None])

    return rows
