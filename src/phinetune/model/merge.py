"""The adapter added into the base model's weights, one weight at a time: W + s B A in fp32.

The model in memory stays as it is: each merged weight exists only while it is looked at, so that writing a merged
model needs no more memory than the model and its largest layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from peft import PeftModel
from peft.tuners.lora.layer import Linear as PeftLinear
from transformers import PreTrainedModel

_WRAPPED = ".base_layer"


@dataclass(frozen=True)
class MergedTensor:
    """A parameter of the merged model by its name in transformers; `make()` computes it in fp32 on the CPU."""

    name: str
    shape: tuple[int, ...]
    make: Callable[[], torch.Tensor]


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
            make=_maker(parameter, adapted.get(name)),
        )


def _maker(parameter: torch.Tensor, layer: PeftLinear | None) -> Callable[[], torch.Tensor]:
    @torch.no_grad()
    def make() -> torch.Tensor:
        weight = parameter.detach().to("cpu", torch.float32, copy=True)
        if layer is not None:
            [name] = layer.active_adapters
            down, up = (part[name].weight.detach().float().cpu() for part in (layer.lora_A, layer.lora_B))
            weight.addmm_(up, down, alpha=layer.scaling[name])
        return weight

    return make
