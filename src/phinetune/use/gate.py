"""Before the server: what does not carry the key, is too large, comes too slowly or asks nothing goes no further.

    client ─► head, whole within 20 s ─► its key, compared in constant time ─► body, whole within 60 s ─► server
                                      └► 401                                └► 413, 408, 400

The server behind compares keys letter by letter, and so tells by its time how many are right; it takes bodies of
100 MiB, and each that is on its way keeps one of its places. It listens where other people of this machine cannot reach
it, and is asked once for each connection: a second request would come unlooked at.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from phinetune.use.asked import refuse_unanswerable
from phinetune.use.request import BLOCK, MOST_BODY, RefusedError, Request, digest, look_at

_HEAD, _BODIES = 1 << 16, 64 << 20  # bytes at most: of a head, and of all bodies that are held at once
_LISTENING, _UPLOADING, _SENDING = 20, 60, 120  # seconds for a head, for a body, and for a client to take what is sent
_CLIENTS = 256  # connections at once; more are closed
_SETTLING = 0.05  # seconds at the end, in which a client just let in is met; one that is not would wait for ever
_LINGERING = 2  # seconds that a refused client may go on sending, as it reads the answer only afterwards

_REFUSALS = {
    400: ("Bad Request", "This is no request that can be read in one way", "invalid_request_error"),
    401: ("Unauthorized", "Invalid API Key", "authentication_error"),
    404: ("Not Found", "There is nothing at this place", "not_found_error"),
    408: ("Request Timeout", f"The body was not whole within {_UPLOADING} seconds", "invalid_request_error"),
    413: ("Content Too Large", f"A body may have {MOST_BODY >> 20} MiB", "invalid_request_error"),
    415: ("Unsupported Media Type", "A body may not be compressed", "invalid_request_error"),
    502: ("Bad Gateway", "The server behind does not answer", "server_error"),
    503: ("Service Unavailable", "Too much is being sent at once: try again", "server_error"),
}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Gate:
    """Listens at `host` and `port` and passes on to `inside`, the path of a Unix socket or a (host, port).

    Without a `key` everybody passes. Raises OSError when the port cannot be used.
    """

    def __init__(self, host: str, port: int, key: str | None, inside: str | tuple[str, int]) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=_CLIENTS)
        self._key, self._inside = digest(key.encode()) if key is not None else None, inside
        self._clients = self._held = 0
        self._meetings: set[asyncio.Task[Any]] = set()
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
        await asyncio.sleep(_SETTLING)
        server.close()
        for meeting in self._meetings:
            meeting.cancel()
        await asyncio.gather(*self._meetings)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client, from its first byte to the last."""
        self._clients += 1
        meeting = asyncio.current_task()
        assert meeting is not None
        self._meetings.add(meeting)  # the loop alone would let go of one that waits for its connection to close
        try:
            if self._clients <= _CLIENTS:
                await self._pass_on(reader, writer)
        except asyncio.CancelledError:
            pass  # the gate ends
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            pass  # it left, said nothing, or said no request
        finally:
            self._clients -= 1
            await _leave(writer)
            self._meetings.discard(meeting)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _LISTENING)
        body = bytearray()
        try:
            try:
                request = look_at(head, self._key)
                await self._take(request, body, reader, writer)
                refuse_unanswerable(request.head[0], bytes(body))
                await self._ask(request, body, reader, writer)
            finally:  # also while a refused client is told so
                self._let_go(body)
        except RefusedError as refused:
            await _refuse(refused, reader, writer)

    async def _take(
        self, request: Request, body: bytearray, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Fill `body`. Raises RefusedError when it comes too slowly or is too large, or all that are held are."""
        if request.waits:
            writer.write(_CONTINUE)
        try:
            async with asyncio.timeout(_UPLOADING):
                async for part in request.body(reader):
                    if len(body) + len(part) > MOST_BODY:
                        raise RefusedError(413)
                    if self._held + len(part) > _BODIES:
                        raise RefusedError(503)
                    body += part
                    self._held += len(part)
        except TimeoutError:
            raise RefusedError(408) from None

    def _let_go(self, body: bytearray) -> None:
        self._held -= len(body)
        body.clear()

    async def _ask(
        self, request: Request, body: bytearray, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Pass the request on, and the answer back."""
        try:
            answers, asking = await self._open_inside()
        except OSError:
            raise RefusedError(502) from None
        watching = asyncio.create_task(_quietly(_tell_when_gone(reader, asking)))
        try:
            asking.write(request.with_body(bytes(body)))
            self._let_go(body)
            await asyncio.wait_for(asking.drain(), _SENDING)
            await _pour(answers, writer)
        finally:
            watching.cancel()
            await _leave(asking)

    async def _open_inside(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._inside, str):
            return await asyncio.open_unix_connection(self._inside)
        return await asyncio.open_connection(*self._inside)


async def _refuse(refused: RefusedError, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    status = refused.status
    reason, message, kind = _REFUSALS[status]
    body = json.dumps({"error": {"code": status, "message": refused.message or message, "type": kind}}).encode()
    head = b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    writer.write(head % (status, reason.encode(), len(body)) + body)
    await writer.drain()
    writer.write_eof()
    with suppress(TimeoutError):
        await asyncio.wait_for(_swallow(reader), _LINGERING)


async def _swallow(reader: asyncio.StreamReader) -> None:
    while await reader.read(BLOCK):
        pass


async def _tell_when_gone(reader: asyncio.StreamReader, asking: asyncio.StreamWriter) -> None:
    """A client that leaves is waited for by nobody: the server is told, and stops to answer."""
    await _swallow(reader)
    asking.write_eof()


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while block := await reader.read(BLOCK):
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
