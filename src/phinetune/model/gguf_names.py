"""How llama.cpp names and lays out what transformers calls otherwise. One table per architecture, read both ways.

    model.layers.3.self_attn.q_proj.weight  <->  blk.3.attn_q.weight

Facts: gguf-py/gguf/tensor_mapping.py and convert_hf_to_gguf.py of https://github.com/ggml-org/llama.cpp
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

_LLAMA_BLOCK = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_LLAMA_OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_PHI2_BLOCK = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.dense": "attn_output",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}
_PHI2_OUTER = {"model.embed_tokens": "token_embd", "model.final_layernorm": "output_norm", "lm_head": "output"}


@dataclass(frozen=True)
class TensorNames:
    """The two vocabularies of one architecture, and what llama.cpp keeps in another order."""

    outer: dict[str, str]
    block: dict[str, str]
    interleaved: frozenset[str] = frozenset()
    """Projections whose rows llama.cpp reorders head by head: see `interleave`."""

    def to_gguf(self, name: str) -> str:
        """The GGUF name of a transformers parameter. Raises KeyError for one that llama.cpp has no place for."""
        module, _, kind = name.rpartition(".")
        if match := re.fullmatch(r"model\.layers\.(\d+)\.(.+)", module):
            return f"blk.{match[1]}.{self.block[match[2]]}.{kind}"
        return f"{self.outer[module]}.{kind}"

    def to_transformers(self, name: str) -> str:
        """The transformers name of a GGUF tensor. Raises KeyError for an unknown one."""
        module, _, kind = name.rpartition(".")
        if match := re.fullmatch(r"blk\.(\d+)\.(.+)", module):
            return f"model.layers.{match[1]}.{_turned(self.block)[match[2]]}.{kind}"
        return f"{_turned(self.outer)[module]}.{kind}"

    def is_interleaved(self, name: str) -> bool:
        """Whether the transformers parameter `name` has its rows in another order in a GGUF file."""
        return name.split(".")[-2] in self.interleaved


NAMES = {
    "phi2": TensorNames(_PHI2_OUTER, _PHI2_BLOCK),
    "llama": TensorNames(_LLAMA_OUTER, _LLAMA_BLOCK, interleaved=frozenset({"q_proj", "k_proj"})),
    "qwen2": TensorNames(_LLAMA_OUTER, _LLAMA_BLOCK),
}

# The `model_type` of a transformers configuration -> `general.architecture` of a GGUF file.
ARCHITECTURES = {"phi": "phi2", "llama": "llama", "mistral": "llama", "qwen2": "qwen2"}

# Original Phi-2 files keep query, key and value one below the other in a single tensor.
FUSED = "attn_qkv"
FUSED_PARTS = ("attn_q", "attn_k", "attn_v")


def interleave(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of q_proj or k_proj in transformers' order -> llama.cpp's: (rows, ...) -> (rows, ...).

    Rotary embedding turns pairs of numbers. transformers pairs row i of a head with row i + half, llama.cpp's
    `llama` pairs neighbours: 0 1 2 3 4 5 -> 0 3 1 4 2 5. `heads` is the number of heads of this projection, so
    of key-value heads for k_proj.
    """
    return weight[_interleaved_order(len(weight), heads)]


def deinterleave(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """The way back from `interleave`."""
    return weight[torch.argsort(_interleaved_order(len(weight), heads))]


def _interleaved_order(rows: int, heads: int) -> torch.Tensor:
    return torch.arange(rows).view(heads, 2, -1).transpose(1, 2).reshape(-1)


def _turned(table: dict[str, str]) -> dict[str, str]:
    return {value: key for key, value in table.items()}
