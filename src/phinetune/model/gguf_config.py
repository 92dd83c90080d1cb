"""GGUF metadata -> the transformers configuration of the same model.

    phi2.embedding_length = 2560, phi2.rope.dimension_count = 32 ...  ->  PhiConfig(hidden_size=2560, ...)

A feature that changes what the model computes and has no counterpart here is refused, never dropped in silence.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, MistralConfig, PhiConfig, PreTrainedConfig, Qwen2Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from phinetune.errors import ModelError
from phinetune.model.gguf_file import Floats, GgufFile
from phinetune.model.gguf_names import NAMES

ROPE_FACTORS = "rope_freqs.weight"

_OTHER_MODEL = "Choose another base model, or give the original Hugging Face model instead of the .gguf file."
# Keys that mean another kind of layer than the plain ones built here, with what they stand for.
_UNSUPPORTED = {
    "expert_count": "a mixture of experts",
    "attention.clamp_kqv": "clamped attention",
    "attention.max_alibi_bias": "ALiBi positions",
    "logit_scale": "scaled logits",
    "embedding_scale": "scaled embeddings",
    "residual_scale": "scaled residuals",
    "attention.scale": "a scaled attention",
    "final_logit_softcapping": "capped logits",
}


def read_config(file: GgufFile) -> PreTrainedConfig:
    """The configuration of the model in `file`, with its special tokens.

    Raises ModelError for an architecture or feature that is not supported, and for a missing entry.
    """
    entries = _Entries(file)
    vocabulary = _rows(file, "token_embd.weight")
    heads = entries.number("attention.head_count")
    shared: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": entries.number("embedding_length"),
        "intermediate_size": entries.number("feed_forward_length"),
        "num_hidden_layers": entries.number("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": entries.number("attention.head_count_kv", heads),
        "max_position_embeddings": entries.number("context_length"),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "bos_token_id": file.metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": file.metadata.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": file.metadata.get("tokenizer.ggml.padding_token_id"),
    }
    if shared["hidden_size"] % heads:
        raise entries.refused("a width that its attention heads do not share evenly")
    entries.refuse_unsupported()
    return _phi(entries, shared) if entries.architecture == "phi2" else _llama(entries, shared)


def refuse_absurd(file: GgufFile, config: PreTrainedConfig) -> None:
    """Before a model is built: a header may ask for a billion layers. Raises ModelError when there is no room for them.

    Every layer has tensors of its own, and matrices of its width.
    """
    numbers = sum(tensor.size for tensor in file.tensors.values())
    layers, width, inner = config.num_hidden_layers, config.hidden_size, config.intermediate_size
    if layers > len(file.tensors) or layers * width * max(width, inner) > numbers:
        raise ModelError(
            f"{file.path} asks for {layers:,} layers of {width:,} and {inner:,} numbers, and has {numbers:,} in all.",
            "The file is damaged or incomplete: download it again or convert the model again.",
        )


class _Entries:
    """The metadata of one architecture: `number("block_count")` is `phi2.block_count`."""

    def __init__(self, file: GgufFile) -> None:
        self.file = file
        self.architecture = file.metadata.get("general.architecture")
        if self.architecture not in NAMES:
            raise ModelError(
                f"{file.path} holds a model of the architecture {self.architecture!r}, which cannot be trained "
                f"from a .gguf file; {', '.join(NAMES)} can.",
                _OTHER_MODEL,
            )

    def get(self, key: str, default: Any = None) -> Any:
        """A per-layer list of equal values counts as that value."""
        value = self.file.metadata.get(f"{self.architecture}.{key}", default)
        if isinstance(value, list):
            if len(set(value)) != 1:
                raise self.refused(f"layers that differ in {key}")
            value = value[0]
        return value

    def number(self, key: str, default: int | None = None) -> int:
        return int(self._checked(key, default, int))

    def real(self, key: str, default: float | None = None) -> float:
        # Stored in float32: 1e-05 would come back as 9.999999747378752e-06.
        return float(str(np.float32(self._checked(key, default, (int, float)))))

    def _checked(self, key: str, default: Any, kind: Any) -> Any:
        value = self.get(key, default)
        if not isinstance(value, kind) or not value > 0:
            raise ModelError(
                f"{self.file.path} has {value!r} as {self.architecture}.{key}, where a number above 0 belongs.",
                "The file is damaged or incomplete: download it again or convert the model again.",
            )
        return value

    def refused(self, feature: str) -> ModelError:
        return ModelError(f"{self.file.path} has {feature}, which is not supported.", _OTHER_MODEL)

    def refuse_unsupported(self) -> None:
        for key, feature in _UNSUPPORTED.items():
            if self.get(key, 0) not in (0, 0.0, 1.0):
                raise self.refused(feature)


def _phi(entries: _Entries, shared: dict[str, Any]) -> PreTrainedConfig:
    head_dim = shared["hidden_size"] // shared["num_attention_heads"]
    if entries.number("attention.key_length", head_dim) != head_dim:
        raise entries.refused("attention heads of an unusual width")
    rope = _rope(entries, head_dim)
    return PhiConfig(
        **shared,
        layer_norm_eps=entries.real("attention.layer_norm_epsilon"),
        rope_parameters=rope | {"partial_rotary_factor": entries.number("rope.dimension_count") / head_dim},
    )


def _llama(entries: _Entries, shared: dict[str, Any]) -> PreTrainedConfig:
    head_dim = entries.number("attention.key_length", shared["hidden_size"] // shared["num_attention_heads"])
    if entries.number("rope.dimension_count", head_dim) != head_dim:
        raise entries.refused("rotary positions on a part of each head")
    if entries.number("attention.value_length", head_dim) != head_dim:
        raise entries.refused("values of another width than keys")
    shared |= {
        "rms_norm_eps": entries.real("attention.layer_norm_rms_epsilon"),
        "rope_parameters": _rope(entries, head_dim),
    }
    if entries.architecture == "qwen2":
        return Qwen2Config(**shared)
    if window := entries.get("attention.sliding_window"):
        return MistralConfig(**shared, head_dim=head_dim, sliding_window=window)
    has_bias = {name: f"blk.0.{name}.bias" in entries.file.tensors for name in ("attn_q", "ffn_down")}
    return LlamaConfig(**shared, head_dim=head_dim, attention_bias=has_bias["attn_q"], mlp_bias=has_bias["ffn_down"])


def _rope(entries: _Entries, head_dim: int) -> dict[str, Any]:
    """How positions turn the heads: `rope_theta`, and a scaling for contexts longer than first trained on."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": entries.real("rope.freq_base", 10000.0)}
    scaling = entries.get("rope.scaling.type", "none")
    if ROPE_FACTORS in entries.file.tensors:
        return _llama3_rope(entries, rope["rope_theta"], head_dim)
    if scaling == "linear":
        return rope | {"rope_type": "linear", "factor": entries.real("rope.scaling.factor")}
    if scaling != "none":
        raise entries.refused(f"positions scaled by {scaling!r}")
    return rope


def _llama3_rope(entries: _Entries, theta: float, head_dim: int) -> dict[str, Any]:
    """The settings that give the stored factors, one per rotary frequency: a GGUF file keeps only the result.

    Llama 3.1 and later all stretch a context of 8,192 between the same two frequencies, by 8 or 32.
    """
    stored = entries.file.rows(ROPE_FACTORS, 0, entries.file.tensors[ROPE_FACTORS].shape[0])
    rope = {
        "rope_type": "llama3",
        "rope_theta": theta,
        "factor": float(stored.max()),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    if stored.shape != (head_dim // 2,) or not np.allclose(_llama3_factors(rope, head_dim), stored, rtol=1e-3):
        raise entries.refused("positions scaled in a way of its own")
    return rope


def _llama3_factors(rope: dict[str, Any], head_dim: int) -> Floats:
    config = LlamaConfig(hidden_size=head_dim, num_attention_heads=1, rope_parameters=rope)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1.0 / rope["rope_theta"] ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    factors: Floats = (plain / scaled).numpy()
    return factors


def _rows(file: GgufFile, name: str) -> int:
    if name not in file.tensors:
        raise ModelError(f"{file.path} has no tensor {name}.", "Give a .gguf file of a whole model, not of an adapter.")
    return file.tensors[name].shape[0]
