"""A request to the server: its head, looked at before anything is done, and its body as it comes.

    POST /v1/chat/completions HTTP/1.1 …  ─►  Request(head, length=71)  ─►  the same and its body, for one answer

What could be read in two ways, by the gate and by the server behind it, is no request (RFC 9112, 6.3 and 7.1).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

MOST_BODY = 4 << 20  # bytes: a question has a few thousand
BLOCK = 1 << 16  # bytes read at a time
_TRAILERS = 100  # lines after the last chunk; nothing in them is passed on

_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*")
_OF_THE_CONNECTION = (b"connection", b"keep-alive", b"proxy-connection", b"upgrade")
_OF_THE_BODY = (b"content-length", b"transfer-encoding", b"trailer", b"expect")


class RefusedError(Exception):
    """Answered with an HTTP status, and not passed on. `message` says what is wrong where the status does not."""

    def __init__(self, status: int, message: str | None = None) -> None:
        super().__init__(status)
        self.status, self.message = status, message


@dataclass(frozen=True)
class Request:
    """A request line and its fields, without what is said of the body: `length` bytes, or chunks where that is None."""

    head: tuple[bytes, ...]
    length: int | None
    waits: bool  # for the word to go on, before it sends the body

    def body(self, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
        """Its parts. Raises RefusedError when it ends too early or is no body, IncompleteReadError likewise."""
        return _exactly(self.length, reader) if self.length is not None else _chunked(reader)

    def with_body(self, body: bytes) -> bytes:
        """The whole request, which asks for one answer only."""
        said = b"Content-Length: %d" % len(body), b"Connection: close"
        return b"\r\n".join([*self.head, *said, b"", body])


def look_at(head: bytes, key: bytes | None) -> Request:
    """What the head says. Raises RefusedError: it is read in two ways, lacks the key, or tells of too large a body."""
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    fields = [_FIELD.fullmatch(line) for line in lines]
    if re.fullmatch(rb"[A-Z]+ [^\s\0]+ HTTP/1\.[01]", first) is None or not all(fields):
        raise RefusedError(400)
    said = [(field[1].lower(), field[2]) for field in fields if field]
    keys = [value.removeprefix(b"Bearer ") for name, value in said if name in (b"authorization", b"x-api-key")]
    # Every key is looked at: how long it takes tells nothing.
    if key is not None and not sum(hmac.compare_digest(digest(each), key) for each in keys) == len(keys) > 0:
        raise RefusedError(401)
    left_out = _OF_THE_CONNECTION + _OF_THE_BODY
    kept = [line for line, (name, _) in zip(lines, said, strict=True) if name not in left_out]
    return Request((first, *kept), _length(said), any(name == b"expect" for name, _ in said))


def _length(said: list[tuple[bytes, bytes]]) -> int | None:
    """How long the body is; None where it comes in chunks. Raises RefusedError when that is not plain, or too long."""
    lengths = [value for name, value in said if name == b"content-length"]
    codings = [value.lower() for name, value in said if name == b"transfer-encoding"]
    if any(name == b"content-encoding" and value.lower() != b"identity" for name, value in said):
        raise RefusedError(415)  # a few kilobytes may unpack to gigabytes
    if codings:
        if lengths or codings != [b"chunked"]:
            raise RefusedError(400)
        return None
    if len(lengths) > 1 or not all(re.fullmatch(rb"[0-9]+", length) for length in lengths):
        raise RefusedError(400)
    digits = lengths[0].lstrip(b"0") if lengths else b""
    if len(digits) > len(str(MOST_BODY)) or int(digits or b"0") > MOST_BODY:
        raise RefusedError(413)
    return int(digits or b"0")


async def _exactly(length: int, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while length:
        if not (part := await reader.read(min(length, BLOCK))):
            raise RefusedError(400)
        length -= len(part)
        yield part


async def _chunked(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The parts of a chunked body (RFC 9112, 7.1), without extensions and trailers."""
    while size := _chunk_size(await reader.readuntil(b"\r\n")):
        async for part in _exactly(size, reader):
            yield part
        if await reader.readexactly(2) != b"\r\n":
            raise RefusedError(400)
    for _ in range(_TRAILERS):
        if await reader.readuntil(b"\r\n") == b"\r\n":
            return
    raise RefusedError(400)


def _chunk_size(line: bytes) -> int:
    if (said := re.fullmatch(rb"0*([0-9A-Fa-f]{0,16})[ \t]*(?:;[^\r\n]*)?\r\n", line)) is None or line[:1] == b";":
        raise RefusedError(400)
    if (size := int(said[1] or b"0", 16)) > MOST_BODY:
        raise RefusedError(413)
    return size


def digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()  # of one length, whatever the key's
