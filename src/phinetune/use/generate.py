"""Questions -> answers, streamed one at a time or batched by length.

The prompt is the training prompt, token for token. Writing stops at end-of-text, at the longest allowed answer,
or where the model opens a next question of its own, as an untuned base model does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache

from phinetune.settings import GenerateSettings
from phinetune.tokens.encode import Encoder

_BATCH = 32  # questions answered at once
_UNFINISHED = "\ufffd"  # what a tokenizer shows for a character of which some bytes are still to come


def stream(model: Any, encoder: Encoder, question: str, settings: GenerateSettings) -> Iterator[str]:
    """The answer to one question, piece by piece, trimmed of what would not be part of it."""
    writing = _Writing(encoder)
    shown = ""
    for tokens in _decode(model, encoder, [encoder.prompt_ids(question)], [writing], settings):
        writing.add(tokens[0])
        ready = writing.settled_text()
        if len(ready) > len(shown):
            yield ready[len(shown) :]
            shown = ready
    yield writing.answer()[len(shown) :]


def answers(model: Any, encoder: Encoder, questions: Sequence[str], settings: GenerateSettings) -> list[str]:
    """The answers to many questions, in their order. Questions of like length are answered together."""
    prompts = [encoder.prompt_ids(question) for question in questions]
    by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    written: dict[int, str] = {}
    for start in range(0, len(by_length), _BATCH):
        chosen = by_length[start : start + _BATCH]
        writings = [_Writing(encoder) for _ in chosen]
        for tokens in _decode(model, encoder, [prompts[i] for i in chosen], writings, settings):
            for writing, token in zip(writings, tokens, strict=True):
                writing.add(token)
        written |= {index: writing.answer() for index, writing in zip(chosen, writings, strict=True)}
    return [written[index] for index in range(len(questions))]


@dataclass
class _Writing:
    """One answer in the making."""

    encoder: Encoder
    tokens: list[int] = field(default_factory=list)
    ended: bool = False

    def add(self, token: int) -> None:
        if self.ended:
            return
        if token in self.encoder.stop_ids:
            self.ended = True
            return
        self.tokens.append(token)
        self.ended = any(stop in self._text() for stop in self.encoder.template.stop_strings())

    def answer(self) -> str:
        return self.encoder.template.clean_answer(self._text())

    def settled_text(self) -> str:
        """What can be shown: no half character, no trailing blanks, no beginning of a stop string."""
        text = self._text()
        template = self.encoder.template
        for stop in template.stop_strings():
            text = text.partition(stop)[0]
        for ending in [*template.stop_strings(), template.tail]:
            held = next((n for n in range(min(len(ending), len(text)), 0, -1) if ending.startswith(text[-n:])), 0)
            text = text[: len(text) - held]
        return "" if text.endswith(_UNFINISHED) else text.strip()

    def _text(self) -> str:
        return str(self.encoder.tokenizer.decode(self.tokens, skip_special_tokens=True))


@torch.inference_mode()
def _decode(
    model: Any,
    encoder: Encoder,
    prompts: Sequence[Sequence[int]],
    writings: Sequence[_Writing],
    settings: GenerateSettings,
) -> Iterator[list[int]]:
    """The next token of every prompt, step after step, until all writings have ended.

    Shorter prompts are padded on their left and the padding masked out, with positions that count real tokens.
    """
    device = next(model.parameters()).device
    longest = max(map(len, prompts))
    pad = encoder.eos_id  # any id will do: it is masked by position
    ids = torch.tensor([[pad] * (longest - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
    generator = torch.Generator(device)
    if settings.seed is None:
        generator.seed()
    else:
        generator.manual_seed(settings.seed)
    cache = DynamicCache()
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    for _ in range(settings.max_new_tokens):
        output = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        chosen = choose(output.logits[:, -1, : encoder.vocabulary].float(), settings, generator)
        yield chosen.tolist()
        if all(writing.ended for writing in writings):
            return
        ids = chosen[:, None]
        mask = torch.cat([mask, mask.new_ones(len(prompts), 1)], dim=1)
        positions = positions[:, -1:] + 1


def choose(logits: torch.Tensor, settings: GenerateSettings, generator: torch.Generator) -> torch.Tensor:
    """logits [B, V] -> token ids [B]: the likeliest at temperature 0, else nucleus sampling.

    Nucleus: the smallest set of likeliest tokens whose probabilities reach top_p (Holtzman et al., 2020,
    "The Curious Case of Neural Text Degeneration").
    """
    if settings.temperature == 0:
        return logits.argmax(dim=-1)
    probabilities, order = (logits / settings.temperature).softmax(dim=-1).sort(dim=-1, descending=True)
    reached_before = probabilities.cumsum(dim=-1) - probabilities
    nucleus = probabilities.masked_fill(reached_before >= settings.top_p, 0.0)
    return order.gather(1, torch.multinomial(nucleus, 1, generator=generator))[:, 0]
