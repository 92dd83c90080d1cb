"""Questions -> answers, streamed one at a time or batched by length.

The prompt is the training prompt, token for token. Writing stops at end-of-text, at what the template has behind an
answer, at the longest allowed answer, or where the model opens a next question of its own, as an untuned base model
does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from phinetune.model.decode import decoder as make_decoder
from phinetune.model.device import device_of
from phinetune.settings import GenerateSettings
from phinetune.tokens.encode import Encoder

_BATCH = 32  # questions answered at once
_LEAVE_AT = 0.75  # ended answers leave the batch once no more than this share goes on
_UNFINISHED = "\ufffd"  # what a tokenizer shows for a character of which some bytes are still to come


def stream(
    model: Any,
    encoder: Encoder,
    question: str,
    settings: GenerateSettings,
    history: Sequence[tuple[str, str]] = (),
) -> Iterator[str]:
    """The answer to one question, piece by piece, trimmed of what would not be part of it.

    `history`: earlier questions and answers, put before the prompt as they would stand in training.
    """
    writing = _Writing(encoder)
    shown = ""
    for [(_, token)] in _decode(model, encoder, [encoder.prompt_ids(question, history)], [writing], settings):
        writing.add(token)
        ready = writing.settled_text()
        if len(ready) > len(shown):
            yield ready[len(shown) :]
            shown = ready
    yield writing.answer()[len(shown) :]


End = Literal["end-of-text", "next question", "length"]


@dataclass(frozen=True)
class Written:
    """An answer, how many tokens it took, and why it ended: by itself, or where it was cut."""

    text: str
    tokens: int
    end: End


def answers(
    model: Any,
    encoder: Encoder,
    questions: Sequence[str],
    settings: GenerateSettings,
    on_progress: Callable[[int], None] = lambda _: None,
) -> list[str]:
    """The answers to many questions, in their order; see `write`."""
    return [written.text for written in write(model, encoder, questions, settings, on_progress)]


def write(
    model: Any,
    encoder: Encoder,
    questions: Sequence[str],
    settings: GenerateSettings,
    on_progress: Callable[[int], None] = lambda _: None,
) -> list[Written]:
    """What the model writes to many questions, in their order. Questions of like length are answered together.

    `on_progress` is told how many are done.
    """
    prompts = [encoder.prompt_ids(question) for question in questions]
    by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    written: dict[int, Written] = {}
    for start in range(0, len(by_length), _BATCH):
        chosen = by_length[start : start + _BATCH]
        writings = [_Writing(encoder) for _ in chosen]
        for tokens in _decode(model, encoder, [prompts[i] for i in chosen], writings, settings):
            for writing, token in tokens:
                writing.add(token)
        written |= {index: writing.written() for index, writing in zip(chosen, writings, strict=True)}
        on_progress(len(written))
    return [written[index] for index in range(len(questions))]


@dataclass
class _Writing:
    """One answer in the making."""

    encoder: Encoder
    tokens: list[int] = field(default_factory=list)
    end: End = "length"

    @property
    def ended(self) -> bool:
        return self.end != "length"

    def add(self, token: int) -> None:
        if token in self.encoder.stop_ids:
            self.end = "end-of-text"
            return
        self.tokens.append(token)
        text, template = self._text(), self.encoder.template
        if template.opening and template.opening in text:
            self.end = "next question"
        elif template.mark and template.mark in text:
            self.end = "end-of-text"

    def written(self) -> Written:
        return Written(self.answer(), len(self.tokens), self.end)

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
) -> Iterator[list[tuple[_Writing, int]]]:
    """The next token of every writing that has not ended, step after step, until all have."""
    decoder = make_decoder(model)
    generator = torch.Generator(device_of(model))
    if settings.seed is None:
        generator.seed()
    else:
        generator.manual_seed(settings.seed)
    logits = decoder.start(prompts)
    lines = list(writings)
    for written in range(1, settings.max_new_tokens + 1):
        chosen = choose(logits[:, : encoder.vocabulary].float(), settings, generator)
        yield [(writing, token) for writing, token in zip(lines, chosen.tolist(), strict=True) if not writing.ended]
        going = [index for index, writing in enumerate(lines) if not writing.ended]
        if not going or written == settings.max_new_tokens:
            return
        if len(going) <= _LEAVE_AT * len(lines):
            kept = torch.tensor(going, device=chosen.device)
            decoder.keep(kept)
            lines, chosen = [lines[index] for index in going], chosen[kept]
        logits = decoder.step(chosen)


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
