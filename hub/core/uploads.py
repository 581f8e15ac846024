"""The role of a blob store that can also take a file in pieces: what uploads need."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from hub.core.ports import Blobs
from protocol.ids import Digest


class PieceWriter(Protocol):
    """The open end of one upload. Not for several threads at once."""

    @property
    def size(self) -> int:
        """Bytes the upload holds."""
        ...

    def write(self, piece: bytes) -> None:
        """Append a piece.

        Raises:
            InvalidError: `too-large`.
            UnavailableError: `disk-full`.
        """
        ...

    def close(self) -> None:
        """Let the upload go; others may continue it."""
        ...


class ResumableBlobs(Blobs, Protocol):
    """Blobs that can arrive in pieces, over several calls. Safe to use from several threads."""

    def start_upload(self, owner: str) -> str:
        """Open an upload that only `owner` can find again, and return its id.

        Raises:
            UnavailableError: `busy`, when too many uploads are open; `disk-full`.
        """
        ...

    def upload_size(self, owner: str, upload: str) -> int:
        """Return the bytes an upload holds, or raise NotFoundError (`blob-unknown`)."""
        ...

    def continue_upload(self, owner: str, upload: str) -> PieceWriter:
        """Open the end of an upload.

        Raises:
            NotFoundError: `blob-unknown`.
            ConflictError: `state-conflict`, when somebody else writes to it now.
        """
        ...

    def finish_upload(self, owner: str, upload: str, expected: Digest) -> Digest:
        """Turn an upload into a blob; the upload is gone afterwards, whatever the outcome.

        Raises:
            NotFoundError: `blob-unknown`.
            ConflictError: `state-conflict`, when somebody writes to it now.
            InvalidError: `digest-mismatch`.
            UnavailableError: `disk-full`.
        """
        ...

    def cancel_upload(self, owner: str, upload: str) -> None:
        """Forget an upload, or raise NotFoundError (`blob-unknown`)."""
        ...

    def expire_uploads(self, before: datetime) -> int:
        """Remove everything unfinished that was last written before `before`; return how many."""
        ...
