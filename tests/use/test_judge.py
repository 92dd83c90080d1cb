"""Who says what is right; the model as judge is asked over this machine's loopback."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from phinetune.errors import RunError, SettingsError
from phinetune.use.judge import Endpoint, judge


@pytest.fixture
def endpoint():
    """An OpenAI-compatible interface that says yes to plum, and remembers what it got."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((self.path, self.headers.get("Authorization"), body))
            asked = body["messages"][0]["content"]
            said = "Maybe." if "perhaps" in asked else "**Yes**" if "Answer: plum" in asked else "no, it does not"
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"choices": [{"message": {"content": said}}]}).encode())

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Endpoint(f"http://127.0.0.1:{server.server_port}/v1/", "judge-8b", "sesame"), seen
    server.shutdown()
    server.server_close()


def test_judges_without_a_model():
    assert judge("contains")("Who?", "Maren Tibb", "It is old Maren Tibb.")
    assert not judge("exact")("Who?", "Maren Tibb", "It is old Maren Tibb.")
    assert judge("numeric")("How many?", "417 steps", "There are 417.")


def test_a_model_as_judge(endpoint):
    where, seen = endpoint
    decide = judge("llm-endpoint", where)
    assert decide("Which colour?", "Plum.", "plum, of course")
    assert not decide("Which colour?", "Plum.", "green")
    path, key, body = seen[0]
    assert (path, key, body["model"], body["temperature"]) == ("/v1/chat/completions", "Bearer sesame", "judge-8b", 0)
    assert "Reference: Plum." in body["messages"][0]["content"]
    with pytest.raises(RunError, match="instead of yes or no"):
        decide("Which colour?", "Plum.", "perhaps")


def test_bad_wishes_are_clear_errors():
    with pytest.raises(SettingsError, match="no judge called coin") as caught:
        judge("coin")
    assert "numeric" in caught.value.hint
    with pytest.raises(SettingsError, match="needs to be reached"):
        judge("llm-endpoint")
    with pytest.raises(SettingsError, match="no address"):
        judge("llm-endpoint", Endpoint("file:///etc/passwd", "m"))("q", "e", "a")
    with pytest.raises(RunError, match="gave no verdict"):
        judge("llm-endpoint", Endpoint("http://127.0.0.1:9/v1", "m"))("q", "e", "a")
