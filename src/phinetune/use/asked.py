"""What a request asks, looked at before the server sees it: what cannot be answered is said in words.

    {"messages": [], "max_tokens": 5}  ─►  400 "Nothing is asked: messages is empty."

llama.cpp answers most of it with an error of its own, some with status 500 and a trace of the template, and passes
over a `stop` that is a number.
"""

from __future__ import annotations

import json
import math
from typing import Any
from urllib.parse import unquote_to_bytes

from phinetune.use.request import RefusedError

_CHATS = ("/chat/completions", "/apply-template", "/v1/messages", "/api/chat")
_TEXTS = ("/completions", "/completion", "/responses")
_WHOLE = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict", "n", "seed", "top_k")
_NUMBERS = ("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repeat_penalty")


def refuse_unanswerable(line: bytes, body: bytes) -> None:
    """`line` is the first one of the request. Raises RefusedError, 400 with what is wrong, for a question without
    text, for settings of the wrong type and for what is no JSON object; other places than those that answer are left
    to the server.
    """
    method, place, _ = line.split(b" ")
    path = unquote_to_bytes(place.partition(b"?")[0]).decode(errors="replace").rstrip("/")
    if method != b"POST" or not path.endswith(_CHATS + _TEXTS):
        return
    asked = _read(body)
    if path.endswith(_CHATS):
        _look_at_messages(asked.get("messages"))
    elif path.endswith("/responses"):
        said = asked.get("input")
        _look_at_messages([{"role": "user", "content": said}] if isinstance(said, str) else said, "input")
    _look_at_settings(asked)


def _read(body: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(body.decode(), parse_constant=_no_number)
        json.dumps(asked, ensure_ascii=False).encode()  # half a character, "\\ud800", is no text
    except (ValueError, RecursionError):
        raise _wrong("The body is no JSON in UTF-8") from None
    if not isinstance(asked, dict):
        raise _wrong('The body is no JSON object such as {"messages": [{"role": "user", "content": "Who?"}]}')
    return asked


def _no_number(name: str) -> None:
    raise ValueError(name)


def _look_at_messages(messages: Any, name: str = "messages") -> None:
    if not isinstance(messages, list):
        raise _wrong(f'{name} has to be a list such as [{{"role": "user", "content": "Who?"}}]')
    if not messages:
        raise _wrong(f"Nothing is asked: {name} is empty")
    texts: list[str] = []
    for number, message in enumerate(messages):
        where = f"{name}[{number}]"
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _wrong(f'{where} has to be an object with a role and a content, such as {{"role": "user", …}}')
        texts.append(_text_of(message, where))
    last = len(texts) - (2 if messages[-1]["role"] == "assistant" else 1)  # an answer that is begun already
    if last < 0 or not texts[last].strip():
        raise _wrong(f"Nothing is asked: the content of {name}[{max(last, 0)}] is empty")


def _text_of(message: dict[str, Any], where: str) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if content is None:  # of an answer that called a tool
        return ""
    if not isinstance(content, list):
        raise _wrong(f"The content of {where} has to be a text, or a list of texts")
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("text", "input_text", "output_text"):
            raise _wrong(f"The content of {where} holds something else than text, which is all that this model reads")
        if not isinstance(part.get("text"), str):
            raise _wrong(f"A part of the content of {where} has no text")
    return "".join(part["text"] for part in content)


def _look_at_settings(asked: dict[str, Any]) -> None:
    said = {name: value for name, value in asked.items() if value is not None}
    for name in _WHOLE:
        if name in said and not _is_number(said[name], whole=True):
            raise _wrong(f"{name} has to be a whole number")
    for name in _NUMBERS:
        if name in said and not _is_number(said[name]):
            raise _wrong(f"{name} has to be a number")
    stop = said.get("stop", [])
    if not all(isinstance(text, str) for text in (stop if isinstance(stop, list) else [stop])):
        raise _wrong("stop has to be a text, or a list of texts")
    if not isinstance(said.get("stream", False), bool):
        raise _wrong("stream has to be true or false")
    tools = said.get("tools", [])
    if not isinstance(tools, list) or not all(map(_is_tool, tools)):
        raise _wrong("tools has to be a list of functions, and this model calls none: leave it out")


def _is_number(value: Any, *, whole: bool = False) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return (isinstance(value, int) or math.isfinite(value)) and (not whole or value == int(value))


def _is_tool(tool: Any) -> bool:
    function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
    return isinstance(function, dict) and isinstance(function.get("name"), str)


def _wrong(message: str) -> RefusedError:
    return RefusedError(400, message)
