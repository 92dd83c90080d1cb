"""Writing many answers at once: prompts in, the next token's logits out, again and again.

    prompts   [a a a] [b] [c c]     one padding-free row goes through the model, its keys and values into the cache
    cache     a a a A A · ·         a line per answer, filled from the left up to its own length; a step adds one
              b B B · · · ·         token to every line and attends to what the line holds
              c c C C · · ·

Answers that have ended leave the cache, and with it every later step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from peft import PeftModel
from torch.nn.functional import linear, scaled_dot_product_attention
from transformers import DynamicCache, PreTrainedModel

from phinetune.model import layers
from phinetune.model.attend import attend_within_documents
from phinetune.model.device import device_of
from phinetune.model.ops import ops_for

_SPARE = 32  # tokens a line is lengthened by when it is full


class Decoder(Protocol):
    def start(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Take the prompts in; the logits [B, V] of the token after each."""
        ...

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Add a token [B] to every line; the logits [B, V] of the one after it."""
        ...

    def keep(self, lines: torch.Tensor) -> None:
        """Go on with these lines [B'] alone, in this order."""
        ...


def decoder(model: PreTrainedModel | PeftModel) -> Decoder:
    """The fast one for models that the layers cover, else one by transformers' own forward and cache."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    return FastDecoder(base) if layers.covers(base) else PlainDecoder(model)


class FastDecoder:
    """By the layers written out in layers.py. Inference only."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.heads, self.kv_heads, self.head_dim = layers.heads(model)
        self.device = model.lm_head.weight.device
        self.lengths = torch.empty(0, dtype=torch.long, device=self.device)
        self.keys: list[torch.Tensor] = []  # a layer each, [B, Kv, room, d]
        self.values: list[torch.Tensor] = []

    def start(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        lengths = [len(prompt) for prompt in prompts]
        ids = torch.tensor([token for prompt in prompts for token in prompt], device=self.device)
        positions = torch.cat([torch.arange(length) for length in lengths]).to(self.device)
        line = torch.repeat_interleave(torch.arange(len(prompts)), torch.tensor(lengths)).to(self.device)
        cos, sin = layers.rotation(self.model, positions)
        within = attend_within_documents(self.model, positions, lengths)
        shape = (len(prompts), self.kv_heads, max(lengths) + _SPARE, self.head_dim)
        self.keys, self.values = [], []

        def attend(index: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, /) -> torch.Tensor:
            for store, rows in ((self.keys, self._turned(k, cos, sin)), (self.values, self._split(v))):
                store.append(rows.new_zeros(shape))  # zeros: what is not filled is masked out, but must be finite
                store[-1][line, :, positions] = rows
            return within(index, q, k, v)

        self.lengths = torch.tensor(lengths, device=self.device)
        return self._logits(layers.hidden_states(self.model, ids, attend, self.lengths.cumsum(0) - 1))

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        lines = torch.arange(tokens.shape[0], device=self.device)
        positions, self.lengths = self.lengths, self.lengths + 1
        longest = int(self.lengths.max())
        if longest > self.keys[0].shape[2]:
            self._lengthen()
        cos, sin = layers.rotation(self.model, positions)
        seen = (torch.arange(longest, device=self.device) < self.lengths[:, None])[:, None, None]

        def attend(index: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, /) -> torch.Tensor:
            keys, values = self.keys[index], self.values[index]
            keys[lines, :, positions] = self._turned(k, cos, sin)
            values[lines, :, positions] = self._split(v)
            query = self._turned(q, cos, sin)[:, :, None]
            held, values = keys[:, :, :longest], values[:, :, :longest]
            if q.dtype == torch.float16:  # Phi-2's q·k overflows it
                query, held, values = query.float(), held.float(), values.float()
            attended = scaled_dot_product_attention(
                query,
                held,
                values,
                attn_mask=seen,
                scale=self.head_dim**-0.5,
                enable_gqa=self.heads != self.kv_heads,
            )
            return attended.flatten(1).to(q.dtype)

        return self._logits(layers.hidden_states(self.model, tokens, attend))

    def keep(self, lines: torch.Tensor) -> None:
        self.lengths = self.lengths[lines]
        self.keys = [keys[lines] for keys in self.keys]
        self.values = [values[lines] for values in self.values]

    def _turned(self, flat: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        return ops_for(flat).rotate(self._split(flat), cos, sin)

    def _split(self, row: torch.Tensor) -> torch.Tensor:
        return row.view(row.shape[0], -1, self.head_dim)

    def _lengthen(self) -> None:
        for store in (self.keys, self.values):
            for index, old in enumerate(store):
                store[index] = torch.nn.functional.pad(old, (0, 0, 0, max(_SPARE, old.shape[2] // 4)))

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return linear(hidden, self.model.lm_head.weight, self.model.lm_head.bias)


class PlainDecoder:
    """By the model's own forward; shorter prompts are padded on their left, and the padding masked out."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.device = device_of(model)
        self.cache = DynamicCache()
        self.mask = torch.empty(0)
        self.positions = torch.empty(0)

    def start(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts], device=self.device)
        self.mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=self.device)
        self.positions = (self.mask.cumsum(1) - 1).clamp(min=0)
        self.cache = DynamicCache()
        return self._forward(ids)

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        self.mask = torch.cat([self.mask, self.mask.new_ones(tokens.shape[0], 1)], dim=1)
        self.positions = self.positions[:, -1:] + 1
        return self._forward(tokens[:, None])

    def keep(self, lines: torch.Tensor) -> None:
        self.mask, self.positions = self.mask[lines], self.positions[lines]
        self.cache.batch_select_indices(lines)

    def _forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        return logits
