"""The gate before the server: who passes, what is passed on, and that nobody waits for another."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import threading
import time

import pytest

from phinetune.use import gate as gate_module
from phinetune.use import request as request_module
from phinetune.use.gate import Gate

KEY = "open sesame"
ASKED = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\n"
pytestmark = pytest.mark.skipif(os.name == "nt", reason="Unix sockets")


class Inside:
    """A server that notes what it is sent and answers each connection once."""

    def __init__(self, path: str) -> None:
        self.heard: list[bytes] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(path)
        self._socket.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            line, _ = self._socket.accept()
            with line:
                heard = bytearray()
                while b"\r\n\r\n" not in heard or not heard.endswith(b"}"):
                    if not (more := line.recv(1 << 16)):
                        break
                    heard += more
                self.heard.append(bytes(heard))
                line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")


@pytest.fixture
def inside(tmp_path):
    return Inside(str(tmp_path / "s"))


@pytest.fixture
def gate(inside, tmp_path):
    made = Gate("127.0.0.1", 0, KEY, str(tmp_path / "s"))
    yield made
    made.close()


def _send(gate: Gate, data: bytes) -> bytes:
    host, port = gate.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(data)
        answer = b""
        while more := line.recv(1000):
            answer += more
    return answer


def _with(*fields: str, body: bytes = b"{}") -> bytes:
    head = "".join(f"{field}\r\n" for field in fields).encode()
    return ASKED + head + b"Content-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize("field", [f"Authorization: Bearer {KEY}", f"authorization:Bearer {KEY}", f"X-Api-Key: {KEY}"])
def test_who_carries_the_key_is_answered(gate, inside, field):
    assert _send(gate, _with(field, body=b'{"a": 1}')).endswith(b"hello")
    assert inside.heard[0].endswith(b'{"a": 1}')


@pytest.mark.parametrize(
    "fields",
    [
        (),
        ("Authorization: Bearer",),
        ("Authorization: Bearer wrong",),
        (f"Authorization: Bearer {KEY}x",),
        (f"Authorization: Bearer {KEY[:-1]}",),
        (f"Authorization: Basic {KEY}",),
        (f"Authorization: Bearer {KEY}", "X-Api-Key: wrong"),
        (f"Authorization: Bearer {KEY}", "Authorization: Bearer wrong"),
    ],
)
def test_who_does_not_is_refused_and_the_server_hears_nothing(gate, inside, fields):
    assert _send(gate, _with(*fields)).startswith(b"HTTP/1.1 401 ")
    assert not inside.heard


@pytest.mark.parametrize(
    "head",
    [
        b"nonsense\r\n\r\n",
        ASKED + f"Authorization : Bearer {KEY}\r\n\r\n".encode(),
        ASKED + f"Authorization: Bearer {KEY}\r\n folded: b\r\n\r\n".encode(),
        ASKED + f"Authorization: Bearer {KEY}\r\nA: b\nC: d\r\n\r\n".encode(),
        ASKED + f"Authorization: Bearer {KEY}\r\nA: \0\r\n\r\n".encode(),
    ],
)
def test_what_could_be_read_in_two_ways_is_no_request(gate, inside, head):
    assert _send(gate, head).startswith(b"HTTP/1.1 400 ")
    assert not inside.heard


def test_without_a_key_everybody_passes(inside, tmp_path):
    made = Gate("127.0.0.1", 0, None, str(tmp_path / "s"))
    try:
        assert _send(made, _with()).endswith(b"hello")
        assert _send(made, _with(f"Content-Length: {1 << 30}", body=b"")).startswith(b"HTTP/1.1 400 ")
    finally:
        made.close()


PASS = f"Authorization: Bearer {KEY}\r\n".encode()
CHUNKED = ASKED + PASS + b"Transfer-Encoding: chunked\r\n\r\n"


def test_chunks_are_passed_on_as_one_body(gate, inside):
    sent = b'4;a=b\r\n{"a"\r\n0004\r\n: 1}\r\n0\r\nTrailer: x\r\n\r\n'
    assert _send(gate, CHUNKED + sent).endswith(b"hello")
    assert inside.heard[0].endswith(b'\r\nContent-Length: 8\r\nConnection: close\r\n\r\n{"a": 1}')
    assert b"chunked" not in inside.heard[0].lower()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (ASKED + PASS + b"Content-Length: %d\r\n\r\n" % (5 << 20), 413),
        (ASKED + PASS + b"Content-Length: %s\r\n\r\n" % (b"9" * 30), 413),
        (ASKED + PASS + b"Content-Length: -1\r\n\r\n", 400),
        (ASKED + PASS + b"Content-Length: abc\r\n\r\n", 400),
        (ASKED + PASS + b"Content-Length: 2\r\nContent-Length: 20\r\n\r\n{}", 400),
        (ASKED + PASS + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", 400),
        (ASKED + PASS + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 400),
        (ASKED + PASS + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", 415),
        (CHUNKED + b"%x\r\n" % (5 << 20), 413),
        (CHUNKED + b"ffffffffffffffff\r\nabc", 413),
        (CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n", 400),
        (CHUNKED + b"2\r\n{}x\r\n0\r\n\r\n", 400),
        (CHUNKED + b"0\r\n" + b"a: b\r\n" * 200, 400),
        (CHUNKED + (b"100000\r\n" + b" " * 0x100000 + b"\r\n") * 5, 413),
    ],
)
def test_a_body_that_is_too_large_or_lies_is_refused_and_the_server_hears_nothing(gate, inside, data, status):
    assert _send(gate, data).startswith(b"HTTP/1.1 %d " % status)
    assert not inside.heard


def test_a_body_of_the_most_that_is_taken_passes(gate, inside, monkeypatch):
    body = b"{" + b" " * (request_module.MOST_BODY - 2) + b"}"
    assert _send(gate, _with(PASS.decode().strip(), body=body)).endswith(b"hello")
    assert inside.heard[0].endswith(body)


def test_who_asks_whether_to_go_on_is_told_so_and_not_when_it_is_too_much(gate, inside):
    fields = PASS + b"Expect: 100-continue\r\n"
    assert _send(gate, ASKED + fields + b"Content-Length: 2\r\n\r\n{}").startswith(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200"
    )
    assert b"expect" not in inside.heard[0].lower()
    assert _send(gate, ASKED + fields + b"Content-Length: 9999999\r\n\r\n").startswith(b"HTTP/1.1 413 ")


def test_a_body_that_comes_slowly_is_left_and_the_server_hears_nothing(gate, inside, monkeypatch):
    monkeypatch.setattr(gate_module, "_UPLOADING", 0.3)
    begun = time.monotonic()
    assert _send(gate, ASKED + PASS + b"Content-Length: 100\r\n\r\n{").startswith(b"HTTP/1.1 408 ")
    assert _send(gate, CHUNKED + b"2\r\n{}\r\n").startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - begun < 30
    assert not inside.heard


def test_all_bodies_that_are_held_have_a_limit_and_it_comes_free_again(gate, inside, monkeypatch):
    monkeypatch.setattr(gate_module, "_BODIES", 1000)
    host, port = gate.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as first:
        first.sendall(ASKED + PASS + b"Content-Length: 2000\r\n\r\n" + b" " * 900)
        time.sleep(0.2)
        assert _send(gate, _with(PASS.decode().strip(), body=b"{" + b" " * 200 + b"}")).startswith(b"HTTP/1.1 503 ")
    time.sleep(0.2)
    assert _send(gate, _with(PASS.decode().strip(), body=b"{" + b" " * 200 + b"}")).endswith(b"hello")


def test_a_client_that_leaves_in_the_middle_of_its_body_asks_nothing(gate, inside):
    host, port = gate.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(ASKED + PASS + b"Content-Length: 100\r\n\r\n{}")
    assert _send(gate, _with(PASS.decode().strip())).endswith(b"hello")
    assert len(inside.heard) == 1


def test_one_connection_asks_once(gate, inside):
    """The server would keep it open, and a second request would come unlooked at."""
    _send(gate, _with(f"Authorization: Bearer {KEY}", "Connection: keep-alive", "Keep-Alive: 9", "Upgrade: h2c"))
    head = inside.heard[0].lower()
    assert b"\r\nconnection: close\r\n" in head
    assert b"keep-alive" not in head
    assert b"upgrade" not in head


def test_a_head_without_end_is_cut_off(gate, inside):
    host, port = gate.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line, contextlib.suppress(ConnectionError):
        line.sendall(ASKED + b"A: " + b"b" * (1 << 20))
        assert line.recv(1) == b""
    assert not inside.heard


def test_who_drips_is_left_and_others_are_answered_meanwhile(gate, inside, monkeypatch):
    monkeypatch.setattr(gate_module, "_LISTENING", 0.3)
    host, port = gate.address.removeprefix("http://").split(":")
    slow = [socket.create_connection((host, int(port)), timeout=10) for _ in range(50)]
    for line in slow:
        line.sendall(ASKED)
    assert _send(gate, _with(f"Authorization: Bearer {KEY}")).endswith(b"hello")
    assert [line.recv(1) for line in slow] == [b""] * 50
    for line in slow:
        line.close()


def test_more_clients_than_are_listened_to_are_closed_and_places_come_free_again(gate, monkeypatch):
    monkeypatch.setattr(gate_module, "_CLIENTS", 2)
    host, port = gate.address.removeprefix("http://").split(":")
    two = [socket.create_connection((host, int(port)), timeout=10) for _ in range(2)]
    time.sleep(0.2)
    with socket.create_connection((host, int(port)), timeout=10) as third:
        assert third.recv(1) == b""
    for line in two:
        line.close()
    time.sleep(0.2)
    assert _send(gate, _with(f"Authorization: Bearer {KEY}")).endswith(b"hello")


def test_a_server_that_is_gone_is_said(tmp_path):
    made = Gate("127.0.0.1", 0, KEY, str(tmp_path / "nobody"))
    try:
        host, port = made.address.removeprefix("http://").split(":")
        line = http.client.HTTPConnection(host, int(port), timeout=10)
        line.request("GET", "/", headers={"X-Api-Key": KEY})
        assert line.getresponse().status == 502
    finally:
        made.close()


def test_closing_leaves_nobody_waiting_and_frees_the_port(inside, tmp_path):
    made = Gate("127.0.0.1", 0, KEY, str(tmp_path / "s"))
    host, port = made.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(ASKED)
        made.close()
        with contextlib.suppress(ConnectionResetError):
            assert line.recv(1) == b""
    Gate(host, int(port), KEY, str(tmp_path / "s")).close()
