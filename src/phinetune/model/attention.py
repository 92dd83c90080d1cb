"""Attention confined to one document of a row, as an attention function that transformers models call.

    lengths (3, 2)         a b c d e
                       a   x
                       b   x x
                       c   x x x          each document sees itself and its past, and nothing of its neighbours
                       d         x
                       e         x x

The row is never masked as a whole: each document is a call of its own, so the work is sum(length²), not
(sum(length))².
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from phinetune.errors import ModelError

NAME = "phinetune_documents"


def document_attention(
    module: torch.nn.Module,  # noqa: ARG001 (the interface's names)
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # noqa: ARG001
    *,
    document_lengths: tuple[int, ...],
    scaling: float | None = None,
    dropout: float = 0.0,
    **_kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """query [1, heads, T, d], key and value [1, kv_heads, T, d] -> [1, T, heads, d].

    fp16 products of q and k overflow in Phi-2 when they are stored in fp16. The fused GPU kernels accumulate in
    fp32; anywhere else fp16 is computed in fp32.
    """
    dtype = query.dtype
    widen = dtype == torch.float16 and not query.is_cuda
    if widen:
        query, key, value = query.float(), key.float(), value.float()
    grouped = key.shape[1] != query.shape[1]
    if grouped and dtype == torch.float16:
        # No fused fp16 kernel of older GPUs takes grouped queries, and the unfused one overflows.
        groups = query.shape[1] // key.shape[1]
        key, value, grouped = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1), False
    outputs = []
    for q, k, v in zip(*(torch.split(t, list(document_lengths), dim=2) for t in (query, key, value)), strict=True):
        outputs.append(
            scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=grouped)
        )
    joined = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)
    return joined.transpose(1, 2).to(dtype), None


def _no_mask(*_: Any, **__: Any) -> None:
    return None


AttentionInterface.register(NAME, document_attention)
AttentionMaskInterface.register(NAME, _no_mask)


def cannot_confine(model: PreTrainedModel) -> ModelError:
    return ModelError(
        f"Models of the kind {model.config.model_type} cannot be trained here: their layers would let one pair of a "
        "row see another.",
        "Choose a model such as microsoft/phi-2, or one of the Llama, Mistral or Qwen families.",
    )


@contextmanager
def confined_to_documents(model: PreTrainedModel) -> Iterator[None]:
    """Within the block, the model takes rows of documents: call it with `document_lengths=`.

    Raises ModelError for a model that does not take an attention function.
    """
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        if model.config._attn_implementation != NAME:
            raise cannot_confine(model)
        yield
    finally:
        model.set_attn_implementation(before)
