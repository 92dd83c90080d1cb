"""What a request asks, looked at before the server sees it: what cannot be answered is said in words.

    {"messages": [], "max_tokens": 5}  ─►  400 "Nothing is asked: messages is empty."

llama.cpp answers most of it with an error of its own, some with status 500 and a trace of the template, and passes
over a `stop` that is a number. A grammar of 150 letters or a list of a billion texts holds up everybody, and the second
takes 15 GB in a minute.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any
from urllib.parse import unquote_to_bytes

from phinetune.use.request import RefusedError

_ANTHROPIC = ("/v1/messages", "/v1/messages/count_tokens")
_CHATS = ("/chat/completions", "/chat/completions/input_tokens", "/apply-template", "/api/chat", *_ANTHROPIC)
_BESIDE = ("name", "reasoning_content", "tool_call_id", "tool_name")  # texts of a message, besides its content
_RESPONSES = ("/responses", "/responses/input_tokens")
_TEXTS = ("/completions", "/completion")
_OF_OTHERS = (
    r"POST /props|\S+ /(infill|embeddings?|rerank|reranking|slots(/.*)?|metrics|audio/transcriptions|(de)?tokenize)"
)
_WHOLE = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict", "n", "seed", "top_k")
_LARGEST = 2**31 - 1  # of a whole number; what is beyond becomes another one
_BACK = ("repeat_last_n", "dry_penalty_last_n")
_FURTHEST = 1_000_000  # tokens to look back: as many are set aside, and two billion stop the server for everybody
_REASONING = ("none", "auto", "deepseek", "deepseek-legacy")
_TEXT = {"type": "text"}
_NUMBERS = ("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repeat_penalty")


def refuse_unanswerable(line: bytes, body: bytes) -> None:
    """`line` is the first one of the request. Raises RefusedError, 400 with what is wrong, for a question without
    text, for settings of the wrong type and for what is no JSON object, or 404 for what this kind of model never does;
    other places than those that answer are left to the server.
    """
    method, place, _ = line.split(b" ")
    path = unquote_to_bytes(place.partition(b"?")[0]).decode(errors="replace").rstrip("/")
    if re.fullmatch(_OF_OTHERS, f"{method.decode()} {path.removeprefix('/v1')}"):
        raise RefusedError(404, f"This model answers questions, and there is nothing at {path}")
    if method != b"POST" or not path.endswith(_CHATS + _RESPONSES + _TEXTS):
        return
    asked = _read(body)
    if path.endswith(_CHATS):
        _look_at_messages(asked.get("messages"))
    elif path.endswith(_RESPONSES):
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
        for key in _BESIDE:
            if not isinstance(message.get(key, ""), str | None):
                raise _wrong(f"{key} of {where} has to be a text")
        calls = message.get("tool_calls") or []
        if not isinstance(calls, list) or not all(_is_function(call, "arguments") for call in calls):
            raise _wrong(f"tool_calls of {where} has to be a list of functions with a name and arguments")
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
    for name in _WHOLE + _BACK:
        most = math.inf if name == "seed" else _FURTHEST if name in _BACK else _LARGEST
        if name in said and not _is_number(said[name], whole=True):
            raise _wrong(f"{name} has to be a whole number")
        if name in said and abs(said[name]) > most:
            raise _wrong(f"{name} has to be a whole number of at most {most:,}")
    for name in _NUMBERS:
        if name in said and not _is_number(said[name]):
            raise _wrong(f"{name} has to be a number")
    stop = said.get("stop", [])
    if not all(isinstance(text, str) for text in (stop if isinstance(stop, list) else [stop])):
        raise _wrong("stop has to be a text, or a list of texts")
    if not isinstance(said.get("stream", False), bool):
        raise _wrong("stream has to be true or false")
    if not isinstance(said.get("stream_options", {}), dict):
        raise _wrong("stream_options has to be an object")
    if not isinstance(said.get("logit_bias", {}), dict | list):
        raise _wrong("logit_bias has to be an object of tokens and numbers")
    if said.get("reasoning_format", "none") not in _REASONING:
        raise _wrong(f"reasoning_format has to be one of {', '.join(_REASONING)}")
    if not isinstance(said.get("chat_template_kwargs", {}), dict) or "messages" in said.get("chat_template_kwargs", {}):
        raise _wrong("chat_template_kwargs has to be an object, and messages stand beside it")
    if said.get("response_format", _TEXT) != _TEXT or any(said.get(name) for name in ("grammar", "json_schema")):
        raise _wrong(
            "This model writes text in no other form than it has learned: leave out response_format, grammar "
            "and json_schema"
        )
    tools = said.get("tools", [])
    if not isinstance(tools, list) or not all(_is_function(tool, "description") for tool in tools):
        raise _wrong("tools has to be a list of functions, and this model calls none: leave it out")


def _is_number(value: Any, *, whole: bool = False) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return (isinstance(value, int) or math.isfinite(value)) and (not whole or value == int(value))


def _is_function(tool: Any, text: str) -> bool:
    function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return False
    return isinstance(function.get(text, ""), str)


def _wrong(message: str) -> RefusedError:
    return RefusedError(400, message)
