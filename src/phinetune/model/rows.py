"""The two ways of a padding-free row through the model.

ids, positions, lengths ─► layers.py, documents.py or flash.py ─► LinearCrossEntropy    Phi and the Llama family
                        └► transformers' forward, confined to documents ─► cross_entropy    everything else
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Protocol

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from phinetune.model import layers
from phinetune.model.attention import confined_to_documents
from phinetune.model.documents import document_attention_by_blocks, lay_out_documents
from phinetune.model.flash import document_bounds, flash_document_attention, has_flash
from phinetune.model.fused import fused_adapters
from phinetune.model.loss import answer_loss, linear_cross_entropy


class RowLoss(Protocol):
    def __call__(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        targets: torch.Tensor,
        predictors: torch.Tensor,
        lengths: tuple[int, ...],
    ) -> torch.Tensor:
        """Sum of -log p(target) over the answer tokens of a row, in nats and fp32.

        ids, positions [1, T]; targets, predictors [A].
        """
        ...


def fast_row_loss(adapted: PeftModel | PreTrainedModel) -> RowLoss | None:
    """By the layers written out here; None where they do not cover the model, adapter and all."""
    model = _base(adapted)
    if not layers.covers(model):
        return None

    def loss(
        ids: torch.Tensor,
        positions: torch.Tensor,
        targets: torch.Tensor,
        predictors: torch.Tensor,
        lengths: tuple[int, ...],
    ) -> torch.Tensor:
        hidden = layers.hidden_states(model, ids[0], _attend(model, positions[0], lengths), predictors)
        return linear_cross_entropy(hidden, model.lm_head.weight, model.lm_head.bias, targets)

    return loss


def _base(model: PeftModel | PreTrainedModel) -> PreTrainedModel:
    base: PreTrainedModel = model.get_base_model() if isinstance(model, PeftModel) else model
    return base


def _attend(model: PreTrainedModel, positions: torch.Tensor, lengths: tuple[int, ...]) -> layers.Attend:
    """Attention within each document of a row: by the fused kernel where the GPU has it, else in blocks."""
    heads, kv_heads, head_dim = layers.heads(model)
    device = positions.device
    cos, sin = layers.rotation(model, positions)
    if has_flash(device, model.dtype, head_dim):
        bounds, longest = document_bounds(lengths, device), max(lengths)

        def by_flash(_index: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, /) -> torch.Tensor:
            return flash_document_attention(q, k, v, cos, sin, bounds, longest, head_dim)

        return by_flash
    layout = lay_out_documents(lengths, heads, kv_heads, head_dim, device)

    def by_blocks(_index: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, /) -> torch.Tensor:
        return document_attention_by_blocks(q, k, v, cos, sin, layout, head_dim**-0.5)

    return by_blocks


@contextmanager
def plain_row_loss(model: PeftModel | PreTrainedModel, *, fused: bool = False) -> Iterator[RowLoss]:
    """By transformers' own forward and PEFT's own adapters, or fused ones: the reference, and the way for every
    model that the layers here do not cover.

    Raises ModelError for a model that does not take an attention function.
    """
    adapters = fused_adapters(model) if fused else nullcontext()
    with confined_to_documents(_base(model)), adapters:

        def loss(
            ids: torch.Tensor,
            positions: torch.Tensor,
            targets: torch.Tensor,
            predictors: torch.Tensor,
            lengths: tuple[int, ...],
        ) -> torch.Tensor:
            return answer_loss(model, ids, positions, targets, predictors, lengths)

        yield loss
