"""Before a server with a key: what does not carry the key goes no further.

    client ─► head of a request, whole within 20 s ─► its key, compared in constant time ─► server ─► answer
                                                   └► 401

The server behind compares keys letter by letter, and so tells by its time how many are right. It listens where other
people of this machine cannot reach it, and is asked once for each connection: a second request would come unlooked at.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import socket
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

_HEAD, _BODY_IN_HAND = 1 << 16, 1 << 16  # bytes: of the request's head at most, and passed on at a time
_LISTENING, _SENDING = 20, 120  # seconds for a head to be whole, and for a client to take what is sent
_CLIENTS = 256  # connections at once; more are closed
_LINGERING = 2  # seconds that a refused client may go on sending, as it reads the answer only afterwards

_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*")
_OF_THE_CONNECTION = (b"connection", b"keep-alive", b"proxy-connection", b"upgrade")
_REFUSAL = json.dumps({"error": {"code": 401, "message": "Invalid API Key", "type": "authentication_error"}}).encode()
_REASONS = {400: b"Bad Request", 401: b"Unauthorized", 502: b"Bad Gateway"}


class Gate:
    """Listens at `host` and `port` and passes on to `inside`, the path of a Unix socket or a (host, port).

    Raises OSError when the port cannot be used.
    """

    def __init__(self, host: str, port: int, key: str, inside: str | tuple[str, int]) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=_CLIENTS)
        self._key, self._inside = _digest(key.encode()), inside
        self._clients = 0
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="gate", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def close(self) -> None:
        """End every connection and listen no more."""
        with suppress(RuntimeError):  # closed already
            self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:  # its end cancels what is under way
            runner.run(self._listen())

    async def _listen(self) -> None:
        server = await asyncio.start_server(self._meet, sock=self._socket, limit=_HEAD)
        await self._ended.wait()
        server.close()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client, from its first byte to the last."""
        self._clients += 1
        try:
            if self._clients <= _CLIENTS:
                await self._pass_on(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            pass  # it left, said nothing, or said no request
        finally:
            self._clients -= 1
            await _leave(writer)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _LISTENING)
        looked_at = _look_at(head, self._key)
        if isinstance(looked_at, int):
            await _refuse(looked_at, reader, writer)
            return
        try:
            answers, asking = await self._open_inside()
        except OSError:
            await _refuse(502, reader, writer)
            return
        asking.write(looked_at)
        sending = asyncio.create_task(_quietly(_pour(reader, asking)))
        try:
            await _pour(answers, writer)
        finally:
            sending.cancel()
            await _leave(asking)

    async def _open_inside(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._inside, str):
            return await asyncio.open_unix_connection(self._inside)
        return await asyncio.open_connection(*self._inside)


def _look_at(head: bytes, key: bytes) -> bytes | int:
    """The head to pass on, which asks for one answer only; 400 when it is none, 401 when it does not carry the key."""
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    fields = [_FIELD.fullmatch(line) for line in lines]
    if re.fullmatch(rb"[A-Z]+ [^\s\0]+ HTTP/1\.[01]", first) is None or not all(fields):
        return 400
    said = [(field[1].lower(), field[2]) for field in fields if field]
    keys = [value.removeprefix(b"Bearer ") for name, value in said if name in (b"authorization", b"x-api-key")]
    # Every key is looked at: how long it takes tells nothing.
    if not sum(hmac.compare_digest(_digest(each), key) for each in keys) == len(keys) > 0:
        return 401
    kept = [line for line, (name, _) in zip(lines, said, strict=True) if name not in _OF_THE_CONNECTION]
    return b"\r\n".join([first, *kept, b"Connection: close", b"", b""])


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()  # of one length, whatever the key's


async def _refuse(status: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    body = _REFUSAL if status == 401 else b""
    head = b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    writer.write(head % (status, _REASONS[status], len(body)) + body)
    await writer.drain()
    writer.write_eof()
    with suppress(TimeoutError):
        await asyncio.wait_for(_swallow(reader), _LINGERING)


async def _swallow(reader: asyncio.StreamReader) -> None:
    while await reader.read(_BODY_IN_HAND):
        pass


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while block := await reader.read(_BODY_IN_HAND):
        writer.write(block)
        await asyncio.wait_for(writer.drain(), _SENDING)
    writer.write_eof()


async def _quietly(work: Coroutine[Any, Any, None]) -> None:
    """What breaks here breaks the answer too, and is met there."""
    with suppress(OSError, TimeoutError):
        await work


async def _leave(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        writer.close()
        await writer.wait_closed()
