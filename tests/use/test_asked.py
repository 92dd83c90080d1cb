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
    ],
)
def test_messages_without_a_question_are_said(messages, says):
    assert says in _refusal({"messages": messages})
    assert says in _refusal({"messages": messages}, b"POST /apply%2Dtemplate/?a=b HTTP/1.0")
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
        ("tools", ["x", [3], [{}]], "a list of functions"),
    ],
)
def test_settings_of_the_wrong_type_are_named(name, values, says):
    for value in values:
        assert _refusal({"messages": [WHO], name: value}).startswith(f"{name} has to be {says}")
        assert _refusal({"prompt": "Who?", name: value}, b"POST /v1/completions HTTP/1.1").startswith(name)
    _passes({"messages": [WHO], name: None})


def test_what_can_be_answered_passes():
    parts = [{"type": "text", "text": "Wh"}, {"type": "text", "text": "o?"}]
    settings = {"max_tokens": 5, "temperature": 1, "top_p": 0.9, "stop": ["a"], "stream": True, "n": 1, "model": "x"}
    for messages in (
        [WHO],
        [{"role": "system", "content": ""}, {"role": "user", "content": parts}],
        [WHO, {"role": "assistant", "content": None, "tool_calls": []}, WHO],
        [WHO, {"role": "assistant", "content": "Old Maren"}],
    ):
        _passes({"messages": messages} | settings)
    _passes({"prompt": "Who?", "stop": "a"}, b"POST /completion HTTP/1.1")
    _passes({"input": "Who?"}, b"POST /v1/responses HTTP/1.1")


@pytest.mark.parametrize("line", [b"GET /v1/models HTTP/1.1", b"POST /tokenize HTTP/1.1", b"POST /x HTTP/1.1"])
def test_other_places_are_left_to_the_server(line):
    _passes(b"nonsense", line)
