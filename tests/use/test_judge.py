"""Who says what is right; the model as judge is asked over this machine's loopback."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from phinetune.errors import RunError, SettingsError
from phinetune.use.judge import Endpoint, judge


@pytest.fixture
def endpoint():
    """An OpenAI-compatible interface that says yes to plum, nothing clear to perhaps and nothing at all to hush."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((self.path, self.headers.get("Authorization"), body))
            self.send_response(200 if self.headers.get("Authorization") == "Bearer sesame" else 401)
            self.end_headers()
            said = _said(body["messages"][0]["content"].rpartition("Answer: ")[2], len(seen))
            self.wfile.write(json.dumps({"choices": [{"message": {"content": said}}]}).encode() if said != "" else b"")

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Endpoint(f"http://127.0.0.1:{server.server_port}/v1/", "judge-8b", "sesame"), seen
    server.shutdown()
    server.server_close()


def _said(answer, count):
    match answer:
        case "plum, of course":
            return "**Yes**"
        case "plum, thought over":
            return "<think>No, or is it?</think>\n\nYes."
        case "plum, only thought to its end":
            return "Not green.</think> yes"
        case "plum, at the second time":
            return "Hm." if count % 2 == 0 else "Yes"  # the trial question came first
        case "perhaps":
            return "Nothing to say."
        case "perhaps, thought and cut":
            return "<think>Yes, or"
        case "perhaps, and silent":
            return None
        case "hush":
            return ""
    return "no, it does not"


def test_judges_without_a_model():
    assert judge("contains")("Who?", "Maren Tibb", "It is old Maren Tibb.")
    assert not judge("exact")("Who?", "Maren Tibb", "It is old Maren Tibb.")
    assert judge("numeric")("How many?", "417 steps", "There are 417.")
    assert judge("numeric")("How many?", "Quite a few.", "There are 417.") is None


def test_a_model_as_judge(endpoint):
    where, seen = endpoint
    decide = judge("llm-endpoint", where)
    assert decide("Which colour?", "Plum.", "plum, of course")
    assert not decide("Which colour?", "Plum.", "green")
    path, key, body = seen[1]
    assert (path, key, body["model"], body["temperature"]) == ("/v1/chat/completions", "Bearer sesame", "judge-8b", 0)
    assert "Reference: Plum." in body["messages"][0]["content"]


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("plum, thought over", True),
        ("plum, only thought to its end", True),
        ("plum, at the second time", True),
        ("perhaps", None),
        ("perhaps, thought and cut", None),
        ("perhaps, and silent", None),
        ("hush", None),
    ],
)
def test_one_odd_reply_ends_nothing(endpoint, answer, verdict):
    decide = judge("llm-endpoint", endpoint[0])
    assert decide("Which colour?", "Plum.", answer) is verdict
    assert decide("Which colour?", "Plum.", "plum, of course")


def test_a_judge_that_is_gone_is_not_waited_for(endpoint):
    where, seen = endpoint
    decide = judge("llm-endpoint", where)
    for _ in range(3):  # what is unclear is a reply all the same
        assert [decide("Which colour?", "Plum.", answer) for answer in ("hush", "hush", "perhaps")] == [None] * 3
    before = len(seen)
    assert [decide("Which colour?", "Plum.", "hush") for _ in range(20)] == [None] * 20
    assert len(seen) - before == 2 * 3  # each is asked twice


def test_a_judge_that_cannot_be_reached_shows_at_once(endpoint):
    where, seen = endpoint
    with pytest.raises(RunError, match="401"):
        judge("llm-endpoint", replace(where, api_key="wrong"))
    assert all("sky" in body["messages"][0]["content"] for _, _, body in seen)
    with pytest.raises(RunError, match="gave no verdict") as caught:
        judge("llm-endpoint", Endpoint("http://127.0.0.1:9/v1", "m"))
    assert "--judge-url" in caught.value.hint
    for url in ("file:///etc/passwd", "http://localhost:abc/v1", "http://a b/v1"):
        with pytest.raises(SettingsError, match="is no address of a judge"):
            judge("llm-endpoint", Endpoint(url, "m"))


def test_bad_wishes_are_clear_errors():
    with pytest.raises(SettingsError, match="no judge called coin") as caught:
        judge("coin")
    assert "numeric" in caught.value.hint
    for nowhere in (None, Endpoint("", "llama3.1")):
        with pytest.raises(SettingsError, match="needs to be reached"):
            judge("llm-endpoint", nowhere)
    with pytest.raises(SettingsError, match="the judge is contains") as caught:
        judge("contains", Endpoint("http://localhost:11434/v1", "llama3.1"))
    assert "--judge llm-endpoint" in caught.value.hint
