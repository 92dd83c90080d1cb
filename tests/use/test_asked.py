"""What is no question is refused with 400 and in words; everything that the server can answer passes."""

from __future__ import annotations

import json

import pytest

from phinetune.use.asked import refuse_unanswerable
from phinetune.use.request import RefusedError

CHAT = b"POST /v1/chat/completions HTTP/1.1"
WHO = {"role": "user", "content": "Who?"}


def _refusal(body, line=CHAT):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(RefusedError) as refused:
        refuse_unanswerable(line, data)
    assert refused.value.status == 400
    return refused.value.message


def _passes(body, line=CHAT):
    refuse_unanswerable(line, body if isinstance(body, bytes) else json.dumps(body).encode())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"Who?",
        b"\xff{}",
        b'{"messages": NaN}',
        b'{"a": "\\ud800"}',
        b"[" * 100_000,
        b"9" * 10_000,
        b"\xef\xbb\xbf{}",
    ],
)
def test_what_is_no_json_is_said(body):
    assert _refusal(body) == "The body is no JSON in UTF-8"


@pytest.mark.parametrize("body", [[], "Who?", 3, None, [{}]])
def test_what_is_no_object_is_said(body):
    assert _refusal(body).startswith("The body is no JSON object")


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([], "Nothing is asked: messages is empty"),
        ([{"role": "user", "content": " \n"}], "Nothing is asked: the content of messages[0] is empty"),
        ([{"role": "user"}], "Nothing is asked: the content of messages[0] is empty"),
        ([{"role": "user", "content": None}], "Nothing is asked: the content of messages[0] is empty"),
        ([WHO, {"role": "user", "content": []}], "Nothing is asked: the content of messages[1] is empty"),
        ([{"role": "assistant", "content": "Old Maren"}], "Nothing is asked: the content of messages[0] is empty"),
        (None, "messages has to be a list"),
        ("Who?", "messages has to be a list"),
        (["Who?"], "messages[0] has to be an object with a role and a content"),
        ([WHO, {"content": "Who?"}], "messages[1] has to be an object with a role and a content"),
        ([{"role": 3, "content": "Who?"}], "messages[0] has to be an object with a role and a content"),
        ([{"role": "user", "content": 3}], "The content of messages[0] has to be a text"),
        ([{"role": "user", "content": {"text": "Who?"}}], "The content of messages[0] has to be a text"),
        ([{"role": "user", "content": ["Who?"]}], "something else than text"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "something else than text"),
        ([{"role": "user", "content": [{"type": "text", "text": 3}]}], "has no text"),
        ([WHO | {"name": 3}], "name of messages[0] has to be a text"),
        ([WHO, {"role": "tool", "content": "x", "tool_call_id": []}, WHO], "tool_call_id of messages[1]"),
        ([WHO | {"tool_calls": "x"}], "tool_calls of messages[0] has to be a list"),
        ([WHO | {"tool_calls": [{"type": "function", "function": {"name": "f", "arguments": 4}}]}], "tool_calls of"),
    ],
)
def test_messages_without_a_question_are_said(messages, says):
    assert says in _refusal({"messages": messages})
    assert says in _refusal({"messages": messages}, b"POST /apply%2Dtemplate/?a=b HTTP/1.0")
    assert says in _refusal({"messages": messages}, b"POST /v1/messages/count_tokens HTTP/1.1")
    if not isinstance(messages, str):  # a text is a question there
        assert says.replace("messages", "input") in _refusal({"input": messages}, b"POST /v1/responses HTTP/1.1")


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("max_tokens", ["5", 2.5, True, []], "a whole number"),
        ("seed", ["x", 0.5], "a whole number"),
        ("temperature", ["hot", False, {}], "a number"),
        ("top_p", ["x"], "a number"),
        ("stop", [3, [3], {}, ["a", None]], "a text, or a list of texts"),
        ("stream", ["yes", 1], "true or false"),
        ("tools", ["x", [3], [{}], [{"type": "function", "function": {"name": "f", "description": 3}}]], "a list of"),
        ("max_tokens", [10**12, -(10**12)], "a whole number of at most 2,147,483,647"),
        ("repeat_last_n", ["x", 2**31 - 1], "a whole number"),
        ("chat_template_kwargs", ["x", {"messages": 3}], "an object"),
        ("stream_options", ["x", []], "an object"),
        ("logit_bias", ["x", 3], "an object"),
        ("reasoning_format", ["x", 3, []], "one of none, auto"),
    ],
)
def test_settings_of_the_wrong_type_are_named(name, values, says):
    for value in values:
        assert _refusal({"messages": [WHO], name: value}).startswith(f"{name} has to be {says}")
        assert _refusal({"prompt": "Who?", name: value}, b"POST /v1/completions HTTP/1.1").startswith(name)
    _passes({"messages": [WHO], name: None})


@pytest.mark.parametrize(
    "wish",
    [{"grammar": "root ::= root"}, {"json_schema": {"type": "array"}}, {"response_format": {"type": "json_object"}}],
)
def test_another_form_than_text_is_refused(wish):
    assert "in no other form than it has learned" in _refusal({"messages": [WHO]} | wish)
    _passes({"messages": [WHO], "grammar": "", "json_schema": None, "response_format": {"type": "text"}})


@pytest.mark.parametrize(
    "place",
    ["POST /infill", "POST /v1/embeddings?a=b", "GET /slots", "POST /slots/0", "POST /props", "POST /detokenize"],
)
def test_what_no_such_model_does_is_not_found(place):
    with pytest.raises(RefusedError, match="404") as refused:
        refuse_unanswerable(f"{place} HTTP/1.1".encode(), b"{}")
    assert "there is nothing at /" in refused.value.message


def test_what_can_be_answered_passes():
    parts = [{"type": "text", "text": "Wh"}, {"type": "text", "text": "o?"}]
    settings = {
        "max_tokens": 5,
        "temperature": 1,
        "top_p": 0.9,
        "stop": ["a"],
        "stream": True,
        "n": 1,
        "model": "x",
    } | {"seed": 2**63, "stream_options": {"include_usage": True}, "logit_bias": {"5": 1}}
    for messages in (
        [WHO],
        [{"role": "system", "content": ""}, {"role": "user", "content": parts}],
        [WHO, {"role": "assistant", "content": None, "tool_calls": []}, WHO],
        [WHO, {"role": "assistant", "content": "Old Maren"}],
    ):
        _passes({"messages": messages} | settings)
    _passes({"prompt": "Who?", "stop": "a"}, b"POST /completion HTTP/1.1")
    _passes({"input": "Who?"}, b"POST /v1/responses HTTP/1.1")


@pytest.mark.parametrize("line", [b"GET /v1/models HTTP/1.1", b"POST /x HTTP/1.1", b"GET /props HTTP/1.1"])
def test_other_places_are_left_to_the_server(line):
    _passes(b"nonsense", line)
