"""Talks HTTP/1.1 to modules on this device, over connections that stay open.

Every input that is fed to a model passes here, so it parses no more of HTTP than a module's answer
needs. Loopback only in practice: no TLS, no redirects, no proxies.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import lru_cache
from typing import cast
from urllib.parse import urlsplit

from protocol.errors import Code, DeviceError

ANSWER_LIMIT = 16 * 1024 * 1024
_HEAD_LIMIT = 64 * 1024
_IDLE_PER_SERVER = 4
_NO_BODY = frozenset({204, 304})
_STATUS_CLASS = 100


class _StaleError(Exception):
    """The server closed a kept connection before it saw the request."""


@dataclass(frozen=True, slots=True)
class _Target:
    host: str
    port: int
    head: bytes


class HttpProber:
    """Plays `agent.core.ports.Prober`. Belongs to one event loop; close it with `close`."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, int], list[_Connection]] = {}

    async def request(
        self, url: str, body: bytes | None, *, timeout_seconds: float
    ) -> tuple[int, bytes]:
        """GET (no body) or POST JSON and return (status, answer).

        Raises:
            DeviceError: `probe-failed`, when no answer of at most 16 MiB came in time.
        """
        target = _target(url)
        message = _message(target, body)
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._exchange(target, message)
        except TimeoutError as error:
            raise _failed(url, f"no answer within {timeout_seconds:g} seconds") from error
        except (OSError, ValueError) as error:
            raise _failed(url, str(error) or type(error).__name__) from error

    async def close(self) -> None:
        """Close every kept connection."""
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()

    async def _exchange(self, target: _Target, message: bytes) -> tuple[int, bytes]:
        kept = self._idle.get((target.host, target.port))
        while kept:
            connection = kept.pop()
            if not connection.is_open:
                continue
            try:
                return await self._ask(target, connection, message)
            except _StaleError:
                continue
        loop = asyncio.get_running_loop()
        _, fresh = await loop.create_connection(_Connection, target.host, target.port)
        try:
            return await self._ask(target, fresh, message)
        except _StaleError as error:
            raise ConnectionResetError("the connection was closed without an answer") from error

    async def _ask(
        self, target: _Target, connection: _Connection, message: bytes
    ) -> tuple[int, bytes]:
        try:
            answer = await connection.ask(message)
        except BaseException:
            connection.close()
            raise
        idle = self._idle.setdefault((target.host, target.port), [])
        if connection.is_open and len(idle) < _IDLE_PER_SERVER:
            idle.append(connection)
        else:
            connection.close()
        return answer


class _Connection(asyncio.Protocol):
    """One connection: a request, then its answer, then perhaps the next request."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[tuple[int, bytes]] | None = None
        self._buffer = bytearray()
        self._answer: _Answer | None = None
        self._reusable = True

    @property
    def is_open(self) -> bool:
        """Whether another request can be sent, from the running event loop."""
        transport = self._transport
        here = self._loop is asyncio.get_running_loop()
        return here and self._reusable and transport is not None and not transport.is_closing()

    def ask(self, message: bytes) -> asyncio.Future[tuple[int, bytes]]:
        self._waiter = self._loop.create_future()
        self._answer = None
        if self._transport is not None:
            self._transport.write(message)
        return self._waiter

    def close(self) -> None:
        self._reusable = False
        if self._transport is not None and not self._loop.is_closed():
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # what create_connection makes

    def data_received(self, data: bytes) -> None:
        if self._waiter is None or self._waiter.done():
            self.close()  # an answer to nothing
            return
        self._buffer += data
        try:
            self._advance(self._waiter, at_end=False)
        except ValueError as error:
            self._waiter.set_exception(error)
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._reusable = False
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        try:
            self._advance(waiter, at_end=True)
        except ValueError as error:
            waiter.set_exception(error)
        if waiter.done():
            return
        if self._answer is None and not self._buffer:
            waiter.set_exception(_StaleError())
        else:
            waiter.set_exception(exc or ConnectionResetError("the answer was cut off"))

    def _advance(self, waiter: asyncio.Future[tuple[int, bytes]], *, at_end: bool) -> None:
        if self._answer is None:
            self._answer = _parse_head(self._buffer)
            if self._answer is None:
                return
        body = self._answer.take(self._buffer, at_end=at_end)
        if body is None:
            return
        self._reusable = self._reusable and not self._answer.closes and not self._buffer
        waiter.set_result((self._answer.status, body))


@dataclass(slots=True)
class _Answer:
    """The head of an answer, and its body as far as it came."""

    status: int
    length: int | None
    chunked: bool
    closes: bool
    body: bytearray

    def take(self, buffer: bytearray, *, at_end: bool) -> bytes | None:
        """Return the whole body once it is there, and remove it from the buffer."""
        if self.chunked:
            return self._take_chunks(buffer)
        if self.length is None:
            if len(buffer) > ANSWER_LIMIT:
                raise ValueError(_too_large())
            return bytes(buffer) if at_end else None
        if len(buffer) < self.length:
            return None
        with memoryview(buffer) as view:
            body = bytes(view[: self.length])
        del buffer[: self.length]
        return body

    def _take_chunks(self, buffer: bytearray) -> bytes | None:
        while (end := buffer.find(b"\r\n", 0, 1024)) >= 0:
            size = _parse_number(bytes(buffer[:end]).partition(b";")[0].strip(), 16)
            if size == 0:
                return self._take_trailers(buffer, end)
            if len(self.body) + size > ANSWER_LIMIT:
                raise ValueError(_too_large())
            start = end + 2
            if len(buffer) < start + size + 2:
                return None
            self.body += buffer[start : start + size]
            del buffer[: start + size + 2]
        if len(buffer) >= 1024:  # noqa: PLR2004 - no chunk's first line is that long
            raise ValueError("the answer has a chunk without a size")
        return None

    def _take_trailers(self, buffer: bytearray, end: int) -> bytes | None:
        last = end if buffer[end : end + 4] == b"\r\n\r\n" else buffer.find(b"\r\n\r\n", end)
        if last < 0:
            if len(buffer) > _HEAD_LIMIT:
                raise ValueError("the answer's trailers are too large")
            return None
        del buffer[: last + 4]
        return bytes(self.body)


def _parse_head(buffer: bytearray) -> _Answer | None:
    """Remove the head of an answer from the buffer and return it once it is whole."""
    while True:
        end = buffer.find(b"\r\n\r\n")
        if end < 0 or end > _HEAD_LIMIT:
            if len(buffer) > _HEAD_LIMIT:
                raise ValueError("the answer's head is too large")
            return None
        lines = bytes(buffer[:end]).split(b"\r\n")
        del buffer[: end + 4]
        status = _parse_status(lines[0])
        if status >= 2 * _STATUS_CLASS:
            return _answer(status, lines)


def _parse_status(line: bytes) -> int:
    version, _, rest = line.partition(b" ")
    code = rest[:3]
    if not version.startswith(b"HTTP/1.") or len(code) != 3 or not code.isdigit():  # noqa: PLR2004
        raise ValueError("the answer is not HTTP/1.1")
    return int(code)


def _answer(status: int, lines: list[bytes]) -> _Answer:
    headers: dict[bytes, bytes] = {}
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        headers[name.lower()] = value.strip()
    chunked = headers.get(b"transfer-encoding", b"").lower() == b"chunked"
    length: int | None = None
    if status in _NO_BODY:
        length, chunked = 0, False
    elif not chunked and b"content-length" in headers:
        length = _parse_number(headers[b"content-length"], 10)
        if length > ANSWER_LIMIT:
            raise ValueError(_too_large())
    connection = headers.get(b"connection", b"").lower()
    old = lines[0].startswith(b"HTTP/1.0") and connection != b"keep-alive"
    closes = old or connection == b"close" or (length is None and not chunked)
    return _Answer(status, length, chunked, closes, bytearray())


def _parse_number(text: bytes, base: int) -> int:
    if not text.isalnum() or len(text) > 16:  # noqa: PLR2004 - digits of 64 bits
        raise ValueError("the answer has a length that is no number")
    return int(text, base)


def _too_large() -> str:
    return f"the answer is larger than {ANSWER_LIMIT} bytes"


@lru_cache(maxsize=256)
def _target(url: str) -> _Target:
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError as error:
        raise _failed(url, "it is no address of a module") from error
    if parts.scheme != "http" or not parts.hostname or not url.isascii() or not url.isprintable():
        raise _failed(url, "it is no address of a module")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    head = f"{path.replace(' ', '%20')} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: */*\r\n"
    return _Target(parts.hostname, port, head.encode("ascii"))


def _message(target: _Target, body: bytes | None) -> bytes:
    if body is None:
        return b"GET " + target.head + b"\r\n"
    return b"".join(
        (
            b"POST ",
            target.head,
            b"Content-Type: application/json\r\nContent-Length: ",
            str(len(body)).encode("ascii"),
            b"\r\n\r\n",
            body,
        )
    )


def _failed(url: str, why: str) -> DeviceError:
    return DeviceError(
        f"module at {url[:200]!r} did not answer: {why}",
        code=Code.PROBE_FAILED,
        hint="look at the module's log",
    )
