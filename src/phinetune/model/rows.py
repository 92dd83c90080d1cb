"""The two ways of a padding-free row through the model.

ids, positions, lengths ─► layers.py + documents.py ─► loss.py: LinearCrossEntropy        Phi and the Llama family
                        └► transformers' forward, confined to documents ─► cross_entropy  everything else
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Protocol

import torch
from peft import PeftModel

from phinetune.model import layers
from phinetune.model.attention import confined_to_documents
from phinetune.model.documents import document_attention_by_blocks, lay_out_documents
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


def fast_row_loss(adapted: PeftModel) -> RowLoss | None:
    """By the layers written out here; None where they do not cover the model, adapter and all."""
    model = adapted.get_base_model()
    if not layers.covers(model):
        return None

    def loss(
        ids: torch.Tensor,
        positions: torch.Tensor,
        targets: torch.Tensor,
        predictors: torch.Tensor,
        lengths: tuple[int, ...],
    ) -> torch.Tensor:
        heads, kv_heads, head_dim = layers.heads(model)
        layout = lay_out_documents(lengths, heads, kv_heads, head_dim, ids.device)
        cos, sin = layers.rotation(model, positions[0])
        scaling = head_dim**-0.5

        def attend(_index: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return document_attention_by_blocks(q, k, v, cos, sin, layout, scaling)

        hidden = layers.hidden_states(model, ids[0], attend, predictors)
        return linear_cross_entropy(hidden, model.lm_head.weight, model.lm_head.bias, targets)

    return loss


@contextmanager
def plain_row_loss(model: PeftModel, *, fused: bool = False) -> Iterator[RowLoss]:
    """By transformers' own forward and PEFT's own adapters, or fused ones: the reference, and the way for every
    model that the layers here do not cover.

    Raises ModelError for a model that does not take an attention function.
    """
    adapters = fused_adapters(model) if fused else nullcontext()
    with confined_to_documents(model.get_base_model()), adapters:

        def loss(
            ids: torch.Tensor,
            positions: torch.Tensor,
            targets: torch.Tensor,
            predictors: torch.Tensor,
            lengths: tuple[int, ...],
        ) -> torch.Tensor:
            return answer_loss(model, ids, positions, targets, predictors, lengths)

        yield loss
