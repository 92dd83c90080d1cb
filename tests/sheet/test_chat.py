"""Chats become one question and one answer a row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from sheets import only_table

Write = Callable[..., Path]


class TestChat:
    def test_both_forms_give_one_question_and_one_answer(self, text_file: Write) -> None:
        roles = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
        shares = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}
        for chat, key in ((roles, "messages"), (shares, "conversations")):
            table = only_table(text_file(json.dumps(chat)))
            assert table.columns == (f"{key}[user]", f"{key}[assistant]")
            assert table.rows[0].cells == ("Hi", "Hello")

    def test_later_turns_and_system_turns_are_left_out_and_told(self, text_file: Write) -> None:
        def turn(role: str, content: object) -> dict[str, object]:
            return {"role": role, "content": content}

        first = [turn("user", [{"type": "text", "text": "Hi"}]), turn("assistant", "Hello")]
        lines = [first, [turn("system", "Be kind."), *first], [*first, turn("user", "Why?"), turn("assistant", "So.")]]
        table = only_table(text_file("\n".join(json.dumps({"messages": line}) for line in lines)))
        assert {row.cells for row in table.rows} == {("Hi", "Hello")}
        assert {warning.code: warning.rows for warning in table.warnings} == {"multi_turn": (3,), "system_turns": (2,)}
