"""How the registry's answers and bodies travel: error documents, blobs out, pieces in.

Decides status and shape of refusals and how many bytes are in memory at once. Knows no use case.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, BinaryIO

from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Send

from hub.core.distribution import DistributionError, OciCode, Span
from hub.core.uploads import PieceWriter
from protocol.errors import CATALOGUE, Code, DeniedError, FleetError

PIECE_BYTES = 1024 * 1024
IDLE_SECONDS = 60.0
_OCI_CODES = {
    Code.ID_INVALID: (OciCode.NAME_INVALID, 400),
    Code.TOO_LARGE: (OciCode.SIZE_INVALID, 413),
    Code.BUSY: (OciCode.TOOMANYREQUESTS, 429),
    Code.FORBIDDEN: (OciCode.DENIED, 403),
    Code.TOKEN_INVALID: (OciCode.UNAUTHORIZED, 401),
}


class UnauthorizedError(DeniedError):
    """The caller must say who it is, or bring a token for more.

    Attributes:
        challenge: Value of `WWW-Authenticate`.
    """

    def __init__(self, message: str, challenge: str) -> None:
        """Say what is missing."""
        super().__init__(
            message, code=Code.TOKEN_INVALID, hint="log in with a name and an access token"
        )
        self.challenge = challenge


class OciRoute(APIRoute):
    """A route whose refusals are documents of the distribution specification."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the handler."""
        handle = super().get_route_handler()

        async def render(request: Request) -> Response:
            try:
                return await handle(request)
            except FleetError as error:
                return _refusal(error)
            except (ClientDisconnect, TimeoutError):
                return Response(status_code=408)

        return render


class BlobResponse(StreamingResponse):
    """A blob, or a part of it, read in pieces by worker threads; closes the file."""

    def __init__(
        self, file: BinaryIO, span: Span | None, size: int, headers: Mapping[str, str]
    ) -> None:
        """Answer with `span` of `file`, which has `size` bytes."""
        self._file = file
        self._start = span.first if span else 0
        self._length = span.length if span else size
        extra = {"Content-Length": str(self._length)}
        if span:
            extra["Content-Range"] = f"bytes {span.first}-{span.last}/{size}"
        super().__init__(
            content=(),
            status_code=206 if span else 200,
            headers={**headers, **extra},
            media_type="application/octet-stream",
        )

    async def stream_response(self, send: Send) -> None:
        """Send head and body."""
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            await self._send_body(send)
        finally:
            self._file.close()

    async def _send_body(self, send: Send) -> None:
        remaining = self._length
        self._file.seek(self._start)
        while remaining:
            piece = await run_in_threadpool(self._file.read, min(PIECE_BYTES, remaining))
            if not piece:
                raise RuntimeError("a stored blob is shorter than it was")
            remaining -= len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def receive_pieces(request: Request, writer: PieceWriter) -> None:
    """Write the body of a request to an upload; what came before a cut is kept."""
    pending: list[bytes] = []
    size = 0
    stream = request.stream()
    try:
        while True:
            async with asyncio.timeout(IDLE_SECONDS):
                chunk = await anext(stream, None)
            if chunk is None:
                break
            pending.append(chunk)
            size += len(chunk)
            if size >= PIECE_BYTES:
                piece, pending, size = b"".join(pending), [], 0
                await run_in_threadpool(writer.write, piece)
    finally:
        if size:
            await run_in_threadpool(writer.write, b"".join(pending))


async def receive_all(request: Request, *, limit: int) -> bytes:
    """Return the body of a request.

    Raises:
        DistributionError: SIZE_INVALID (413), for more than `limit` bytes.
    """
    body = bytearray()
    stream = request.stream()
    while True:
        async with asyncio.timeout(IDLE_SECONDS):
            chunk = await anext(stream, None)
        if chunk is None:
            return bytes(body)
        body += chunk
        if len(body) > limit:
            raise DistributionError(
                f"the body has more than {limit} bytes",
                oci=OciCode.SIZE_INVALID,
                status=413,
                code=Code.TOO_LARGE,
            )


def _refusal(error: FleetError) -> JSONResponse:
    headers: dict[str, str] = {}
    if isinstance(error, DistributionError):
        oci, status = error.oci, error.status
    else:
        fallback = (OciCode.UNSUPPORTED, CATALOGUE[error.code].http_status)
        oci, status = _OCI_CODES.get(error.code, fallback)
    if isinstance(error, UnauthorizedError):
        headers["WWW-Authenticate"] = error.challenge
    detail = {"code": error.code, "hint": error.hint}
    body = {"errors": [{"code": oci, "message": str(error), "detail": detail}]}
    return JSONResponse(body, status_code=status, headers=headers)
