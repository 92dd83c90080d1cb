"""Conversations in the forms that chat data sets use -> one question and one answer each.

    [{"role": "system", …}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, …]
    [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}, …]

A later turn needs the turns before it to make sense, so only the first question and its answer are taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from phinetune.sheet.table import SheetWarning, as_text

CHAT_KEYS = ("messages", "conversations", "conversation", "dialog", "dialogue", "turns")

_USER = frozenset({"user", "human", "prompter", "customer"})
_ASSISTANT = frozenset({"assistant", "gpt", "chatgpt", "bot", "model", "ai"})


@dataclass(frozen=True)
class Exchange:
    question: str
    answer: str
    later_turns: bool = False
    system_turn: bool = False


def is_chat(value: Any) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(isinstance(turn, Mapping) and _speaker(turn) for turn in value)
    )


def read_exchanges(chats: Iterable[tuple[int, Any]]) -> tuple[list[Exchange], tuple[SheetWarning, ...]]:
    """One exchange per numbered conversation, and warnings that name the lines where more was said."""
    numbered = [(number, first_exchange(value if is_chat(value) else [])) for number, value in chats]
    later = tuple(number for number, exchange in numbered if exchange.later_turns)
    system = tuple(number for number, exchange in numbered if exchange.system_turn)
    warnings = []
    if later:
        message = (
            f"{len(later)} conversations hold more than one question; the first question and its answer are used, "
            "as later ones need what was said before."
        )
        warnings.append(SheetWarning("multi_turn", message, later))
    if system:
        message = f"{len(system)} conversations also hold turns of a system or a tool; these are left out."
        warnings.append(SheetWarning("system_turns", message, system))
    return [exchange for _, exchange in numbered], tuple(warnings)


def first_exchange(turns: list[Mapping[str, Any]]) -> Exchange:
    """The first question, its answer, and whether there was more. Empty where there is none."""
    questions: list[str] = []
    answer: str | None = None
    later = system = False
    for turn in turns:
        speaker = _speaker(turn).lower()
        if speaker in _USER:
            later = later or answer is not None
            if answer is None:
                questions.append(_said(turn))
        elif speaker in _ASSISTANT:
            if questions and answer is None:
                answer = _said(turn)
        else:
            system = True
    return Exchange("\n\n".join(questions), answer or "", later, system)


def _speaker(turn: Mapping[str, Any]) -> str:
    return as_text(turn.get("role") or turn.get("from") or turn.get("speaker"))


def _said(turn: Mapping[str, Any]) -> str:
    content = next((turn[key] for key in ("content", "value", "text") if turn.get(key) is not None), "")
    if isinstance(content, list):
        parts = (part.get("text") if isinstance(part, Mapping) else part for part in content)
        return "\n".join(as_text(part) for part in parts if part)
    return as_text(content)
