"""Answers that are more than a document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import BinaryIO

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

_PIECE = 1024 * 1024


class FileStream(StreamingResponse):
    """The bytes of an open file, which is closed however the answer ends."""

    def __init__(self, file: BinaryIO, headers: Mapping[str, str]) -> None:
        pieces = iter(lambda: file.read(_PIECE), b"")
        super().__init__(pieces, media_type="application/octet-stream", headers=headers)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with self._file:
            await super().__call__(scope, receive, send)
