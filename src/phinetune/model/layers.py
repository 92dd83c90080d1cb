"""The decoder layers of Phi and of the Llama family, written out over the modules and weights of transformers.

    x ─► norm ─► q k v ─► attention ─► o ─►(+)─► norm ─► gate up ─► down ─►(+)      Llama, Mistral, Qwen 2
    x ─► norm ─► q k v fc1 ─► attention ─► dense, gelu ─► fc2 ─►(+)                 Phi: both halves read one norm

The plain reference is the model's own forward. What is gained: layers that read one input share a LoRA product,
a dropped copy and a pass over x, norms and gates take few passes, and attention is whatever the caller plugs in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch.nn.functional import embedding, layer_norm
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from phinetune.model.elementwise import gated_silu, rms_norm
from phinetune.model.fused import is_covered, lora_group


class Attend(Protocol):
    def __call__(self, index: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, /) -> torch.Tensor:
        """Rotation and attention of layer `index`: q [T, H d], k and v [T, Kv d] -> [T, H d]."""
        ...


Layer = Callable[[Any, torch.Tensor, int, Attend, torch.Tensor | None], torch.Tensor]


def phi_layer(layer: Any, x: torch.Tensor, index: int, attend: Attend, rows: torch.Tensor | None) -> torch.Tensor:
    """x [T, n] -> [T, n], or [A, n] when only `rows` [A] of the result are wanted."""
    attention, mlp, norm = layer.self_attn, layer.mlp, layer.input_layernorm
    normed = layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    q, k, v, inner = lora_group(normed, (attention.q_proj, attention.k_proj, attention.v_proj, mlp.fc1))
    attended = attend(index, q, k, v)
    x, attended, inner = _only(rows, x, attended, inner)
    (out,) = lora_group(attended, (attention.dense,))
    (fed,) = lora_group(inner, (mlp.fc2,), gelu=True)
    return out + fed + x


def llama_layer(layer: Any, x: torch.Tensor, index: int, attend: Attend, rows: torch.Tensor | None) -> torch.Tensor:
    """x [T, n] -> [T, n], or [A, n] when only `rows` [A] of the result are wanted."""
    attention, mlp = layer.self_attn, layer.mlp
    normed = _rms_norm(layer.input_layernorm, x)
    q, k, v = lora_group(normed, (attention.q_proj, attention.k_proj, attention.v_proj))
    attended = attend(index, q, k, v)
    x, attended = _only(rows, x, attended)
    (out,) = lora_group(attended, (attention.o_proj,))
    x = x + out
    gate, up = lora_group(_rms_norm(layer.post_attention_layernorm, x), (mlp.gate_proj, mlp.up_proj))
    (fed,) = lora_group(gated_silu(gate, up), (mlp.down_proj,))
    return x + fed


_LAYERS: dict[str, Layer] = {"phi": phi_layer, "llama": llama_layer, "mistral": llama_layer, "qwen2": llama_layer}
_ACTIVATIONS: dict[Layer, tuple[str, ...]] = {
    phi_layer: ("gelu_new", "gelu_pytorch_tanh"),
    llama_layer: ("silu",),
}
_PROJECTIONS = {"q_proj", "k_proj", "v_proj", "o_proj", "dense", "gate_proj", "up_proj", "down_proj", "fc1", "fc2"}


def covers(model: PreTrainedModel) -> bool:
    """Whether the model, which may carry an adapter, computes exactly what the layers above write out.

    A sliding window is no hindrance: documents are shorter. Weights that are read when their module is called
    (streamed.py) are: no module is called here.
    """
    config = model.config
    layer = _LAYERS.get(config.model_type)
    if layer is None or model.lm_head.weight.is_meta or config.hidden_act not in _ACTIVATIONS[layer]:
        return False
    dropouts = (getattr(config, name, 0) for name in ("attention_dropout", "resid_pdrop", "embd_pdrop"))
    if any(dropouts) or getattr(config, "qk_layernorm", False):
        return False
    projections = [module for name, module in model.model.layers.named_modules() if name.split(".")[-1] in _PROJECTIONS]
    return all(map(is_covered, projections))


def hidden_states(
    model: PreTrainedModel, ids: torch.Tensor, attend: Attend, rows: torch.Tensor | None = None
) -> torch.Tensor:
    """ids [T] -> what the head reads, [T, n], or [A, n] for the places `rows` [A] alone.

    The last layer makes no more than these places need. Layers recompute their activations on the way back where
    transformers' gradient checkpointing is on.
    """
    inner = model.model
    compute = _LAYERS[model.config.model_type]
    x = embedding(ids, inner.embed_tokens.weight)
    last = len(inner.layers) - 1
    for index, layer in enumerate(inner.layers):
        arguments = (layer, x, index, attend, rows if index == last else None)
        if inner.training and getattr(layer, "gradient_checkpointing", False):
            x = checkpoint(compute, *arguments, use_reentrant=False)
        else:
            x = compute(*arguments)
    if model.config.model_type == "phi":
        norm = inner.final_layernorm
        return layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    return _rms_norm(inner.norm, x)


def rotation(model: PreTrainedModel, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """positions [T] -> cos and sin [T, d'/2] in fp32 of the first d' numbers of every head."""
    wide = torch.empty(0, device=positions.device)  # tells the module which format to return
    cos, sin = model.model.rotary_emb(wide, positions[None])
    half = cos.shape[-1] // 2
    return cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous()


def heads(model: PreTrainedModel) -> tuple[int, int, int]:
    """(query heads, key and value heads, numbers of a head)."""
    config = model.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return config.num_attention_heads, config.num_key_value_heads or config.num_attention_heads, width


def _rms_norm(norm: Any, x: torch.Tensor) -> torch.Tensor:
    return rms_norm(x, norm.weight, norm.variance_epsilon)


def _only(rows: torch.Tensor | None, *tensors: torch.Tensor) -> Sequence[torch.Tensor]:
    return tensors if rows is None else [tensor.index_select(0, rows) for tensor in tensors]
