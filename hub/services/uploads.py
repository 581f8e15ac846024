"""Files on their way into the hub: streamed, hashed while they arrive, never held in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from hub.core.uploads import ResumableBlobs
from protocol.ids import Digest, parse_digest

_PIECE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class UploadService:
    """Takes files."""

    blobs: ResumableBlobs

    async def receive(
        self, owner: str, stream: AsyncIterator[bytes], expected: str
    ) -> tuple[Digest, int]:
        """Store a stream that must have the digest `expected`; return (digest, bytes).

        Raises:
            InvalidError: `id-invalid`, `digest-mismatch`, `too-large`; nothing is kept then.
            UnavailableError: `disk-full`, `busy`.
        """
        digest = parse_digest(expected)
        if await asyncio.to_thread(self.blobs.has, digest):
            async for _ in stream:
                pass
            return digest, await asyncio.to_thread(self.blobs.size, digest)
        upload = await asyncio.to_thread(self.blobs.start_upload, owner)
        finished = False
        try:
            size = await self._write(owner, upload, stream)
            finished = True
            await asyncio.to_thread(self.blobs.finish_upload, owner, upload, digest)
        finally:
            if not finished:
                await asyncio.to_thread(self.blobs.cancel_upload, owner, upload)
        return digest, size

    async def _write(self, owner: str, upload: str, stream: AsyncIterator[bytes]) -> int:
        writer = await asyncio.to_thread(self.blobs.continue_upload, owner, upload)
        held = bytearray()
        try:
            async for piece in stream:
                held += piece
                if len(held) >= _PIECE:
                    await asyncio.to_thread(writer.write, bytes(held))
                    held.clear()
            if held:
                await asyncio.to_thread(writer.write, bytes(held))
            return writer.size
        finally:
            await asyncio.to_thread(writer.close)
