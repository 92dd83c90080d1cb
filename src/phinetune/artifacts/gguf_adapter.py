"""The adapter alone as a .gguf file of a few megabytes, for `--lora` beside the .gguf base model that is there already.

    A [r, in], B [out, r]  ─►  blk.0.attn_q.weight.lora_a, blk.0.attn_q.weight.lora_b, in f16 or f32

The layout is that of llama.cpp's convert_lora_to_gguf.py. llama.cpp multiplies by alpha / r itself; where an adapter is
scaled in another way, B takes the difference. Nothing of the base model is read but its shape.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import gguf
import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key

from phinetune.artifacts.gguf import GgufFacts, add_facts, architecture_of
from phinetune.artifacts.merge import require_space
from phinetune.errors import ModelError
from phinetune.model.gguf_names import NAMES, interleave
from phinetune.model.shape import ModelShape
from phinetune.run_folder import atomic_file

_FORMATS = {"f16": torch.float16, "f32": torch.float32}
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_PREFIX = "base_model.model."
_LAYER = re.compile(r"base_model\.model\.(model\.layers\.(\d{1,6})\.\w+\.(\w+))")


def write_gguf_adapter(
    path: Path,
    config: LoraConfig,
    weights: Mapping[str, torch.Tensor],
    shape: ModelShape,
    facts: GgufFacts,
    kind: str = "f16",
) -> None:
    """Write the adapter, as its folder holds it, to `path`, or nothing; `shape` is its base model's.

    Raises ModelError for an architecture that is not supported and an adapter that does not fit the base model or is
    more than LoRA, RunError when the disk is too small.
    """
    names = NAMES[architecture_of(shape)]
    heads = {"q_proj": shape.heads, "k_proj": shape.kv_heads}
    modules = _modules(config, weights, shape)
    require_space(path, sum(weight.numel() for weight in weights.values()) * _FORMATS[kind].itemsize + (1 << 20))
    with atomic_file(path) as temporary:
        writer = gguf.GGUFWriter(temporary, architecture_of(shape))
        try:
            add_facts(writer, facts, "adapter")
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
            writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
            writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(config.lora_alpha))
            for name, module in modules.items():
                down, up = weights[name + _DOWN].float(), weights[name + _UP].float()
                up = up * _beyond(config, module, len(down))
                if names.is_interleaved(f"{module}.weight"):
                    up = interleave(up, heads[module.rpartition(".")[2]])
                stored = names.to_gguf(f"{module}.weight")
                for suffix, matrix in (("lora_a", down), ("lora_b", up)):
                    writer.add_tensor(f"{stored}.{suffix}", matrix.to(_FORMATS[kind]).numpy())
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()


def _modules(config: LoraConfig, weights: Mapping[str, torch.Tensor], shape: ModelShape) -> dict[str, str]:
    """The layers that the adapter changes: what its file calls each, and what transformers does.

    Raises ModelError unless they are the layers that its configuration names in the base model, one for one, and A
    and B of each have the sizes that this layer asks for.
    """
    if config.use_dora:
        raise ModelError(
            "An adapter with DoRA cannot stand alone as .gguf: llama.cpp has no place for its magnitudes.",
            "Write the whole model: phinetune gguf without --adapter.",
        )
    layers = {layer.name: layer for layer in shape.linear_layers()}
    modules: dict[str, str] = {}
    for name, weight in weights.items():
        match = _LAYER.fullmatch(module := name.removesuffix(_DOWN).removesuffix(_UP))
        layer = layers.get(match[3]) if match else None
        if match is None or layer is None or int(match[2]) >= shape.layers or module == name:
            raise _does_not_fit(name, f"the base model, of the kind {shape.model_type}, has no such layer")
        down, up = weights.get(module + _DOWN), weights.get(module + _UP)
        if down is None or up is None or down.ndim != 2 or not len(down):
            raise _does_not_fit(name, "its other half is missing")
        if down.shape[1:] + up.shape != (layer.inputs, layer.outputs, len(down)):
            sizes = f"{tuple(down.shape)} and {tuple(up.shape)}"
            raise _does_not_fit(module, f"{sizes} beside a layer of {layer.inputs} inputs and {layer.outputs} outputs")
        if not torch.isfinite(weight).all():
            raise ModelError(f"{name} of the adapter has numbers that are not finite.", "It is damaged: train again.")
        modules[module] = match[1]
    if not modules:
        raise ModelError("The adapter changes no layer.", "Copy it again from where it was trained.")
    if differing := sorted(modules.keys() ^ _named(config, shape)):
        unnamed = differing[0] in modules
        raise _does_not_fit(
            differing[0], "its configuration does not name it" if unnamed else "it has nothing for this layer"
        )
    return modules


def _named(config: LoraConfig, shape: ModelShape) -> set[str]:
    """What the adapter's file has to call the layers that its configuration names in this base model."""
    layers = [
        f"model.layers.{number}.{'self_attn' if layer.is_attention else 'mlp'}.{layer.name}"
        for number in range(shape.layers)
        for layer in shape.linear_layers()
    ]
    return {_PREFIX + layer for layer in layers if check_target_module_exists(config, layer)}


def _does_not_fit(name: str, why: str) -> ModelError:
    return ModelError(
        f"The adapter does not fit this base model: {name.removeprefix(_PREFIX)[:100]}: {why}.",
        "Use the base model it was trained on; its name stands in adapter_config.json.",
    )


def _beyond(config: LoraConfig, module: str, rank: int) -> float:
    """What llama.cpp's alpha / r leaves out of the scaling of this layer."""
    own = get_pattern_key(config.alpha_pattern.keys(), module)
    alpha = float(config.alpha_pattern.get(own, config.lora_alpha))
    scaling = alpha / (math.sqrt(rank) if config.use_rslora else rank)
    return scaling * rank / float(config.lora_alpha) if config.lora_alpha else 0.0
