"""Pair -> Example: token ids, and labels that are set on the answer and end-of-text alone.

    ids     [### Question : ... ### Answer :   A  very bright ... <eos>]
    labels  [-100  -100 -100 ... -100   -100   A  very bright ... <eos>]
            '------ prompt_length ---------'

Prompt and completion are encoded apart and joined as ids, so that the prompt has the same tokens in training as
in asking. Labels are masked by position, never by id: many models use end-of-text as their pad token, and a model
whose end-of-text label was masked never learns to stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from phinetune.errors import SheetError
from phinetune.tokens.prompt import PromptTemplate

IGNORED = -100  # the label that cross-entropy skips, PyTorch's default ignore_index


class QuestionAnswer(Protocol):
    """What encoding needs of a pair; `row` is where the person finds it in the sheet."""

    @property
    def question(self) -> str: ...
    @property
    def answer(self) -> str: ...
    @property
    def row(self) -> int: ...


@dataclass(frozen=True)
class Example:
    """One pair in tokens. `ids[prompt_length:]` is what the model learns to write."""

    ids: tuple[int, ...]
    prompt_length: int
    row: int
    was_cut: bool = False

    @property
    def labels(self) -> tuple[int, ...]:
        return (IGNORED,) * self.prompt_length + self.ids[self.prompt_length :]

    @property
    def answer_tokens(self) -> int:
        return len(self.ids) - self.prompt_length


class Encoder:
    """Encodes pairs for one tokenizer and template.

    `tokenizer` is a transformers tokenizer with an end-of-text token. Text of the sheet is data: a cell that
    spells out "<|endoftext|>" is encoded as those letters, not as the special token.
    """

    def __init__(self, tokenizer: Any, template: PromptTemplate, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.max_length = max_length
        self.eos_id: int = tokenizer.eos_token_id
        first = tokenizer("a").input_ids[:1]
        self.stop_ids = frozenset({self.eos_id})
        self.vocabulary = len(tokenizer)  # Phi-2's head has 905 rows more than its tokenizer has tokens
        self._start = first if first and first[0] == tokenizer.bos_token_id else []

    def prompt_ids(self, question: str, history: Sequence[tuple[str, str]] = ()) -> list[int]:
        """The tokens that the model answers to. Earlier pairs of `history` stand before them, each ended as in
        training; the oldest are left out where `max_length` would be passed.
        """
        ids = self._encode([self.template.prompt(question)])[0]
        for earlier, answer in reversed(history):
            texts = [self.template.prompt(earlier), self.template.completion(answer)]
            pair = [token for part in self._encode(texts) for token in part] + [self.eos_id]
            if len(self._start) + len(pair) + len(ids) > self.max_length:
                break
            ids = pair + ids
        return self._start + ids

    def chat_template(self) -> str:
        """The training prompt as a chat template, which makes `prompt_ids` of a question in other programs too."""
        return self.template.chat_template(begin=bool(self._start))

    def text_ids(self, text: str) -> list[int]:
        """The tokens of plain text, with no prompt around it, of at most `max_length`."""
        return (self._start + self._encode([text])[0])[: self.max_length]

    def examples(self, pairs: Sequence[QuestionAnswer]) -> list[Example]:
        """Every pair as an Example of at most `max_length` tokens; longer answers are cut at their end.

        A cut answer keeps no end-of-text: the model must not learn to stop in the middle of a sentence.
        Raises SheetError that names the rows whose question alone leaves no room for an answer.
        """
        if not pairs:
            return []
        prompts = self._encode([self.template.prompt(pair.question) for pair in pairs])
        completions = self._encode([self.template.completion(pair.answer) for pair in pairs])
        examples, too_long = [], []
        for pair, prompt, completion in zip(pairs, prompts, completions, strict=True):
            start = self._start + prompt
            ids = (*start, *completion, self.eos_id)
            if len(start) >= self.max_length:
                too_long.append(pair.row)
                continue
            examples.append(Example(ids[: self.max_length], len(start), pair.row, len(ids) > self.max_length))
        if too_long:
            rows = ", ".join(map(str, too_long[:10])) + (" …" if len(too_long) > 10 else "")
            raise SheetError(
                f"The question alone fills the {self.max_length} tokens that fit (row {rows}).",
                "Shorten or remove these rows, or allow longer pairs with --max-length.",
            )
        return examples

    def _encode(self, texts: list[str]) -> list[list[int]]:
        encoded = self.tokenizer(texts, add_special_tokens=False, split_special_tokens=True, verbose=False)
        return list(encoded["input_ids"])
