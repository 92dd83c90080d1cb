"""`phinetune serve` among hostile clients, on loopback: broken, slow, huge and lying requests, then an honest one.

After each attack an honest question must be answered, and at the end the server must go when asked.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import _contained as contained

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "model"))

KEY = "sesame-" + "x" * 40
PATIENCE = 20.0


class Victim:
    """The server in a process of its own."""

    def __init__(self) -> None:
        import toys
        from gguf_fixtures import write_gguf

        self.folder = tempfile.TemporaryDirectory(prefix="hostile-clients-")
        file = Path(self.folder.name, "toy.gguf")
        write_gguf(file, toys.phi(), toys.tokenizer())
        command = [sys.executable, "-m", "phinetune", "serve", str(file), "--port", "0", "--json", "--api-key", KEY]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.address = json.loads(self.process.stdout.readline())["address"]
        host, _, port = self.address.rpartition("//")[2].partition(":")
        self.place = (host, int(port))

    def ask(self, key: str | None = KEY, **options: object) -> int:
        """The status of an honest question."""
        body = {"messages": [{"role": "user", "content": "Who keeps it?"}], "max_tokens": 2} | options
        return self.send(json.dumps(body).encode(), key)

    def send(self, body: bytes, key: str | None = KEY, path: str = "/v1/chat/completions") -> int:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        try:
            request = urllib.request.Request(f"{self.address}{path}", body, headers)
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                answer.read()
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def open(self) -> socket.socket:
        return socket.create_connection(self.place, timeout=PATIENCE)

    def raw(self, data: bytes, *, close_writing: bool = False) -> bytes:
        """What comes back to these bytes within a second."""
        with self.open() as line:
            try:
                line.sendall(data)
                if close_writing:
                    line.shutdown(socket.SHUT_WR)
                line.settimeout(1)
                return line.recv(200)
            except OSError:
                return b""

    def memory(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * 4096

    def end(self) -> str:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return "does not end"
        finally:
            self.folder.cleanup()
        return "good" if self.process.returncode == 0 else f"ends with {self.process.returncode}"


def _head(*lines: str) -> bytes:
    head = ("POST /v1/chat/completions HTTP/1.1", f"Host: a\r\nAuthorization: Bearer {KEY}", *lines)
    return "\r\n".join(head).encode() + b"\r\n\r\n"


def _chat(**options: object) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": "Who?"}], "max_tokens": 2} | options).encode()


def _asking(content: object) -> bytes:
    return _chat(messages=[{"role": "user", "content": content}])


def _picture(url: str) -> bytes:
    return _asking([{"type": "image_url", "image_url": {"url": url}}])


def _pattern(pattern: str) -> bytes:
    schema = {"schema": {"type": "string", "pattern": pattern}}
    return _chat(response_format={"type": "json_schema", "json_schema": schema})


def _many(victim: Victim, count: int, data: bytes) -> None:
    """Connections that say something and stay; while they stay, others are answered."""
    lines = []
    try:
        for _ in range(count):
            line = victim.open()
            line.sendall(data)
            lines.append(line)
        assert victim.ask() == 200, "nobody else is answered"
    finally:
        for line in lines:
            line.close()


def _drip(victim: Victim) -> None:
    lines = [victim.open() for _ in range(20)]
    try:
        for letter in _head("Content-Length: 5")[:30]:
            for line in lines:
                line.sendall(bytes([letter]))
            time.sleep(0.1)
        assert victim.ask() == 200, "nobody else is answered"
    finally:
        for line in lines:
            line.close()


def _huge_body(victim: Victim, *fields: str, block: bytes = b" " * (1 << 20)) -> None:
    """Half a gigabyte is sent by four at once: each is refused after a few megabytes, and nothing of it is kept."""
    before = victim.memory()
    lines = [victim.open() for _ in range(4)]
    try:
        for line in lines:
            sent = 0
            with contextlib.suppress(OSError):
                line.sendall(_head("Content-Type: application/json", *fields))
                while sent < 128 << 20:
                    line.sendall(block)
                    sent += len(block)
            answer = b""
            with contextlib.suppress(OSError):  # closed while it was still sending
                answer = line.recv(12)
            assert answer in (b"", b"HTTP/1.1 413"), answer
        grown = victim.memory() - before
        assert grown < 40 << 20, f"{grown >> 20} MiB taken"
    finally:
        for line in lines:
            line.close()


def _too_large(victim: Victim) -> None:
    body = _chat(messages=[{"role": "user", "content": "a" * (5 << 20)}])
    _expect(int(victim.raw(_head(f"Content-Length: {len(body)}")).split()[1]), 413)
    assert victim.raw(_head("Transfer-Encoding: chunked") + b"500000\r\n").startswith(b"HTTP/1.1 413")


def _unpacks(victim: Victim) -> None:
    """A megabyte that unpacks to a gigabyte."""
    body, before = gzip.compress(b" " * (1 << 30), 1), victim.memory()
    answer = victim.raw(_head("Content-Encoding: gzip", f"Content-Length: {len(body)}") + body)
    assert answer.startswith(b"HTTP/1.1 4"), answer
    assert victim.memory() - before < 40 << 20


def _places(victim: Victim) -> None:
    for place in ("/infill", "/embedding", "/v1/embeddings", "/rerank", "/slots/0?action=erase", "/props"):
        _expect(victim.send(b"{}", path=place), 404)
    _expect(victim.send(_chat(messages=3), path="/v1/messages/count_tokens"), 400)


def _every_type(victim: Victim) -> None:
    names = ("logit_bias", "stop", "stream_options", "tools", "tool_choice", "reasoning_format", "samplers", "lora")
    for name in (*names, "n", "seed", "top_p", "response_format", "logprobs", "chat_template_kwargs", "id_slot"):
        for value in ("x", 3, -5, 10**30, 0.5, [], [3], {}, {"a": 1}, True, [[[{}]]]):
            status = victim.ask(**{name: value})
            assert status in (200, 400), f"{name} = {value} is answered with {status}"


def _gone(victim: Victim) -> None:
    """A client that asks for a billion words and leaves."""
    for _ in range(8):
        with victim.open() as line:
            body = _chat(max_tokens=10**9, stream=True)
            line.sendall(_head("Content-Type: application/json", f"Content-Length: {len(body)}") + body)
            line.settimeout(2)
            line.recv(10)


_ENDLESS = "{% for x in range(10**9) %}{% endfor %}"
_GRAMMAR = "root ::= " + '("a"* ' * 200 + ")" * 200
_BILLION = {"type": "array", "items": {"type": "string"}, "maxItems": 10**9}
Attack = Callable[[Victim], object]
ATTACKS: dict[str, Attack] = {
    "no key": lambda v: _expect(v.ask(None), 401),
    "wrong key": lambda v: _expect(v.ask("wrong"), 401),
    "the key and more": lambda v: _expect(v.ask(KEY + "x"), 401),
    "half of the key": lambda v: _expect(v.ask(KEY[:20]), 401),
    "an empty key": lambda v: _expect(v.ask(" "), 401),
    "other people's questions": lambda v: _expect(_get(v, "/slots"), 501, 404, 403, 401),
    "garbage": lambda v: v.raw(b"\x00\xff\x16\x03\x01garbage\r\n\r\n"),
    "no words": lambda v: v.raw(b"\r\n" * 1000),
    "a request line without end": lambda v: v.raw(b"GET /" + b"a" * 1_000_000),
    "a header without end": lambda v: v.raw(_head("X: " + "a" * 1_000_000)),
    "ten thousand headers": lambda v: v.raw(_head(*(f"X{n}: a" for n in range(10_000)))),
    "a negative length": lambda v: v.raw(_head("Content-Length: -1") + b"{}"),
    "an absurd length": lambda v: v.raw(_head("Content-Length: 99999999999999999999") + b"{}"),
    "two lengths": lambda v: v.raw(_head("Content-Length: 2", "Content-Length: 20") + b"{}"),
    "a length of letters": lambda v: v.raw(_head("Content-Length: abc") + b"{}"),
    "chunks that lie": lambda v: v.raw(_head("Transfer-Encoding: chunked") + b"ffffffffffffffff\r\nabc"),
    "compressed nonsense": lambda v: v.raw(_head("Content-Encoding: gzip", "Content-Length: 4") + b"\x1f\x8b\x08\x00"),
    "half closed": lambda v: v.raw(_head("Content-Length: 100") + b"{", close_writing=True),
    "half closed at once": lambda v: v.raw(b"", close_writing=True),
    "a path outside": lambda v: _expect(_get(v, "/../../../../etc/passwd"), 401, 404, 400, 403),
    "broken UTF-8": lambda v: _expect(v.send(_chat().replace(b"Who", b"\xff\xc3\x28")), 400),
    "no JSON": lambda v: _expect(v.send(b"{"), 400),
    "deep JSON": lambda v: _expect(v.send(b"[" * 100_000), 400),
    "deep JSON, whole": lambda v: _expect(v.send(b"[" * 50_000 + b"]" * 50_000), 400),
    "not a number": lambda v: _expect(v.send(_chat(temperature=float("nan"))), 400),
    "infinite heat": lambda v: _expect(v.ask(temperature=1e308), 200, 400),
    "negative heat": lambda v: _expect(v.ask(temperature=-1e308), 200, 400),
    "words of other kinds": lambda v: _expect(v.ask(max_tokens="many", top_p=[], seed={}), 400),
    "a billion words": lambda v: _expect(v.ask(max_tokens=10**9), 200, 400),
    "words without end": lambda v: _expect(v.ask(max_tokens=-1), 200, 400),
    "more words than numbers": lambda v: _expect(v.ask(max_tokens=10**30), 200, 400),
    "a thousand answers": lambda v: _expect(v.ask(n=1000), 200, 400),
    "a question too long": lambda v: _expect(v.send(_asking("a b " * 50_000)), 400),
    "no question": lambda v: _expect(v.send(_chat(messages=[])), 400),
    "a template in the question": lambda v: _expect(v.send(_asking("{{ 7*7 }}{% for x in range(10**9) %}")), 200),
    "a template of its own": lambda v: _expect(v.send(_chat(chat_template=_ENDLESS)), 200, 400),
    "a grammar bomb": lambda v: _expect(v.send(_chat(grammar=_GRAMMAR)), 400),
    "a pattern bomb": lambda v: _expect(v.send(_pattern("^(a+)+$")), 400),
    "a list of a billion": lambda v: _expect(v.send(_chat(json_schema=_BILLION)), 400),
    "back by two billion words": lambda v: _expect(v.ask(repeat_last_n=2**31 - 1, repeat_penalty=2), 400),
    "places of other models": _places,
    "settings of every type": _every_type,
    "a picture from elsewhere": lambda v: _expect(v.send(_picture("http://127.0.0.1:9/a")), 400),
    "a file as a picture": lambda v: _expect(v.send(_picture("file:///etc/passwd")), 400),
    "leaves at once": _gone,
    "a hundred that say nothing": lambda v: _many(v, 100, b""),
    "a hundred that begin": lambda v: _many(v, 100, _head("Content-Length: 100")[:60]),
    "a hundred that stop in the body": lambda v: _many(v, 100, _head("Content-Length: 100") + b"{"),
    "letter by letter": _drip,
    "half a gigabyte": lambda v: _huge_body(v, f"Content-Length: {512 << 20}"),
    "half a gigabyte in chunks": lambda v: _huge_body(
        v, "Transfer-Encoding: chunked", block=b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    ),
    "more than is taken": _too_large,
    "two ways to tell a length": lambda v: v.raw(_head("Content-Length: 2", "Transfer-Encoding: chunked") + b"{}0\r\n"),
    "a compressed gigabyte": _unpacks,
    "a hundred that stop in a chunk": lambda v: _many(v, 100, _head("Transfer-Encoding: chunked") + b"10\r\n{"),
}  # fmt: skip


def _get(victim: Victim, path: str) -> int:
    answer = victim.raw(f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode())
    return int(answer.split()[1]) if answer.startswith(b"HTTP") else 400


def _expect(status: int, *allowed: int) -> None:
    assert status in allowed, f"answered with {status}"


def main() -> None:
    options = contained.arguments(str(__doc__), len(ATTACKS))
    names = list(ATTACKS)[options.seed :][: options.count]
    start = time.monotonic()
    victim = Victim()
    failures = []
    try:
        for name in names:
            if options.seconds and time.monotonic() - start > options.seconds:
                names = names[: names.index(name)]
                break
            try:
                ATTACKS[name](victim)
                _expect(victim.ask(), 200)
            except Exception as error:
                failures.append({"input": name, "outcome": "leak", "words": f"{type(error).__name__}: {error}"})
            if victim.process.poll() is not None:
                failures.append({"input": name, "outcome": "crash", "words": f"code {victim.process.returncode}"})
                victim = Victim()
    finally:
        ended = victim.end()
    if ended != "good":
        failures.append({"input": "the end", "outcome": ended, "words": ""})
    failed = {failure["input"] for failure in failures}
    survived = len(names) - len(failed & set(names))
    told = [f"{failure['input']}: {failure['outcome']} {failure['words']}".strip() for failure in failures]
    seconds = time.monotonic() - start
    contained.report("hostile clients of serve", len(names), survived, seconds, told, as_json=options.json)


if __name__ == "__main__":
    main()
