"""THE prompt format. Training, asking and every export read it from here.

    template   "### Question: {question}\\n\\n### Answer: {answer}"
    prompt     "### Question: What is a quasar?\\n\\n### Answer:"       <- what the model is given
    completion " A very bright galaxy core."                          <- what it learns to say, then end-of-text

The blank before the answer belongs to the completion: a byte-pair tokenizer makes " A" one token, so a prompt
that ended in a blank would be tokenised differently in asking than in training.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from phinetune.errors import SettingsError
from phinetune.settings import DEFAULT_TEMPLATE

_LONGEST_SHOWN = 500  # characters of a template in a message
_SHORTEST_MARK = 3  # characters of a tail that ends an answer: a full stop or a quotation mark may stand within one
_FIELD = re.compile(r"\{(\w*)\}")


@dataclass(frozen=True)
class PromptTemplate:
    """A template text, cut at its answer field. Filling it replaces the fields and evaluates nothing."""

    text: str = DEFAULT_TEMPLATE

    def __post_init__(self) -> None:
        fields = _FIELD.findall(self.text)
        problems = [f"the field {{{name}}} is missing" for name in ("question", "answer") if name not in fields]
        problems += [f"{{{name}}} is not a field" for name in fields if name not in ("question", "answer")]
        if fields.count("answer") > 1:
            problems.append("{answer} may stand only once")
        if not problems and "{question}" not in self._head:
            problems.append("{question} must come before {answer}")
        if problems:
            raise SettingsError(
                f"The template {_short(repr(self.text))} cannot be used: {_short('; '.join(problems))}.",
                'Write one such as "User: {question}\\nAssistant: {answer}".',
            )

    @property
    def _head(self) -> str:
        return self.text.partition("{answer}")[0]

    @property
    def tail(self) -> str:
        """What follows the answer, before end-of-text."""
        return self.text.partition("{answer}")[2]

    def prompt(self, question: str) -> str:
        """The text up to where the answer begins, without a trailing blank."""
        return self._head.rstrip(" ").replace("{question}", question)

    def chat_template(self, *, begin: bool = False) -> str:
        """The prompt as a Jinja chat template, for other programs: the last message, trimmed, is the question.

        Its text is quoted: nothing in it is evaluated. With `begin` the token for the begin of a text stands first.
        """
        quoted = (json.dumps(part, ensure_ascii=False) for part in self.prompt("\0").split("\0"))
        asked = "{{ messages[-1]['content'] | trim }}".join("{{ " + part + " }}" for part in quoted)
        return "{{ bos_token }}" * begin + asked

    def completion(self, answer: str) -> str:
        """The text that the model is to write after the prompt, end-of-text aside."""
        blanks = self._head[len(self._head.rstrip(" ")) :]
        return blanks + answer + self.tail

    @property
    def opening(self) -> str:
        """What opens a next question, where the base model, which never learned to stop, rambles on. "" for nothing."""
        return self._head.partition("{question}")[0].strip()

    @property
    def mark(self) -> str:
        """What the model writes behind every answer, end-of-text aside, blanks before it included. "" for nothing."""
        mark = self.tail.rstrip()
        return mark if len(mark) >= _SHORTEST_MARK else ""

    def stop_strings(self) -> list[str]:
        """Texts that end an answer wherever they stand."""
        return [text for text in (self.opening, self.mark) if text]

    def clean_answer(self, text: str) -> str:
        """The answer within generated text: up to the first stop string, trimmed."""
        for stop in self.stop_strings():
            text = text.partition(stop)[0]
        return text.removesuffix(self.tail).strip()


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]} …"


def unescape(template: str) -> str:
    """Turn the `\\n` and `\\t` that people type in a shell into the characters they mean."""
    return template.replace("\\n", "\n").replace("\\t", "\t")
