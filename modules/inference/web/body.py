"""Reads a request's body, bounded in bytes and seconds."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from granian._granian import RSGIProtocolClosed as ProtocolClosed

from .admission import Place

if TYPE_CHECKING:
    from granian._granian import RSGIHTTPProtocol as HTTPProtocol

BODY_TIMEOUT_SECONDS = 60


class BodyError(Exception):
    """The body is refused; `status` and `headers` are the answer's."""

    def __init__(self, status: int, message: str, *headers: tuple[str, str]) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


class ClientLeftError(Exception):
    """There is nobody left to answer."""


async def read_body(
    proto: "HTTPProtocol", given: Mapping[str, str], place: Place, limit_bytes: int
) -> bytes:
    """Return the whole body, or raise ClientLeftError or BodyError.

    BodyError: 413 too large, 503 no room, 408 too slow, 400 cut off.
    """
    length = given.get("content-length")
    if length is None and "transfer-encoding" not in given:
        return b""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            if length is not None:
                _claim(place, int(length), int(length), limit_bytes)
                return await proto()
            return await _read_chunks(proto, place, limit_bytes)
    except ProtocolClosed:
        raise ClientLeftError from None
    except TimeoutError:
        raise BodyError(
            408, f"the request body did not arrive within {BODY_TIMEOUT_SECONDS} seconds"
        ) from None


async def _read_chunks(proto: "HTTPProtocol", place: Place, limit_bytes: int) -> bytes:
    body = bytearray()
    empty = 0
    async for chunk in proto:
        _claim(place, len(chunk), len(body) + len(chunk), limit_bytes)
        body += chunk
        empty += not chunk
    # granian ends with one empty chunk, and puts another in the place of what it could not read.
    if empty > 1:
        raise BodyError(400, "the request body was cut off", ("connection", "close"))
    return bytes(body)


def _claim(place: Place, size: int, total: int, limit_bytes: int) -> None:
    if total > limit_bytes:
        raise BodyError(
            413, f"the request body is larger than {limit_bytes} bytes", ("connection", "close")
        )
    if not place.take(size):
        message = "The service is busy: the waiting requests hold all the memory for bodies."
        raise BodyError(503, message, ("retry-after", "1"), ("connection", "close"))
