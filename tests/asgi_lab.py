"""An HTTP client of an ASGI application, without a socket."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx


class AsgiTransport(httpx.BaseTransport):
    """Plays each request through the application in an event loop of its own."""

    def __init__(self, app: Any) -> None:
        self._inner = httpx.ASGITransport(app, raise_app_exceptions=False)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        request.read()
        return asyncio.run(self._answer(request))

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        content = await response.aread()
        return httpx.Response(response.status_code, headers=response.headers, content=content)


def asgi_client(app: Any, **options: Any) -> httpx.Client:
    """Return a client whose only host is the application."""
    return httpx.Client(base_url="https://hub.test", transport=AsgiTransport(app), **options)
