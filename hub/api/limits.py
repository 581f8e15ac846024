"""How much a caller may send where the hub reads a body whole: before anybody knows who calls."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_JSON_BYTES = 4 * 1024 * 1024
_PREFIX = "/api/v1/"
_STREAMED = "/api/v1/blobs"


class BodyLimit:
    """ASGI middleware: a JSON body beyond `MAX_JSON_BYTES` is refused with status 413.

    Blobs and the registry take their bodies in pieces and have limits of their own.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path = scope.get("path", "")
        if not path.startswith(_PREFIX) or path == _STREAMED:
            await self._app(scope, receive, send)
            return
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MAX_JSON_BYTES:
                raise HTTPException(413, f"the body is longer than {MAX_JSON_BYTES} bytes")
            return message

        await self._app(scope, counted, send)
