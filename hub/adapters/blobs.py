"""Content-addressed files on a disk, and uploads that grow piece by piece until they become one.

Decides the layout and the order of write, fsync and rename. Knows nothing of repositories or HTTP.
A blob is visible only when it is whole: it is written beside the others and renamed into place.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from protocol.errors import Code, ConflictError, InvalidError, NotFoundError, UnavailableError
from protocol.ids import Digest, parse_digest

PIECE_BYTES = 1024 * 1024
GIB = 1024**3
_UPLOAD = re.compile(r"[0-9a-f]{16}-[0-9a-f]{32}")


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


@dataclass(slots=True)
class _Session:
    """What is known in memory about an upload; lost at a restart and then made again."""

    hasher: _Hash | None = None
    hashed: int = 0
    busy: bool = False


@dataclass(frozen=True, slots=True)
class DiskBlobs:
    """Blobs below `root`: `sha256/ab/ab...` for whole ones, `incoming/` for the others.

    Args:
        root: Folder of the store; made when it is missing.
        max_blob_bytes: Most bytes of one blob.
        max_uploads: Most uploads open at the same time.
    """

    root: Path
    max_blob_bytes: int = 64 * GIB
    max_uploads: int = 1024
    _sessions: dict[str, _Session] = field(default_factory=dict, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make the folders."""
        with disk_errors():
            (self.root / "sha256").mkdir(parents=True, exist_ok=True)
            self._incoming.mkdir(exist_ok=True)

    # ---- whole blobs -----------------------------------------------------------------------------

    def path(self, digest: Digest) -> Path:
        """Return where a blob is, or would be."""
        hexadecimal = parse_digest(digest).removeprefix("sha256:")
        return self.root / "sha256" / hexadecimal[:2] / hexadecimal

    def has(self, digest: Digest) -> bool:
        """Tell whether the bytes are there, whole."""
        return self.path(digest).is_file()

    def size(self, digest: Digest) -> int:
        """Return the size in bytes, or raise NotFoundError (`blob-unknown`)."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise _unknown(digest) from None

    def open(self, digest: Digest) -> BinaryIO:
        """Open for reading, or raise NotFoundError (`blob-unknown`)."""
        try:
            return self.path(digest).open("rb")
        except FileNotFoundError:
            raise _unknown(digest) from None

    def put(self, source: BinaryIO, *, expected: Digest | None = None) -> Digest:
        """Store everything `source` yields, durably, and return its digest.

        Raises:
            InvalidError: `digest-mismatch`, `too-large`; nothing is kept then.
            UnavailableError: `disk-full`.
        """
        partial = self._incoming / f"put-{secrets.token_hex(16)}"
        try:
            with disk_errors():
                digest = self._write(source, partial)
                if expected is not None and digest != expected:
                    raise _mismatch(expected, digest)
                self._adopt(partial, digest)
        finally:
            partial.unlink(missing_ok=True)
        return digest

    def delete(self, digest: Digest) -> bool:
        """Remove a blob; tell whether it was there. Nobody may still refer to it."""
        try:
            self.path(digest).unlink()
        except FileNotFoundError:
            return False
        return True

    # ---- uploads ---------------------------------------------------------------------------------

    def start_upload(self, owner: str) -> str:
        """Open an upload that only `owner` can find again, and return its id.

        Raises:
            UnavailableError: `busy`, when too many uploads are open; `disk-full`.
        """
        upload = f"{_mark(owner)}-{secrets.token_hex(16)}"
        with self._lock, disk_errors():
            if sum(1 for _ in self._incoming.iterdir()) >= self.max_uploads:
                raise UnavailableError(
                    f"{self.max_uploads} uploads are open", code=Code.BUSY, hint="try again later"
                )
            (self._incoming / upload).touch(exist_ok=False)
            self._sessions[upload] = _Session(hashlib.sha256())
        return upload

    def upload_size(self, owner: str, upload: str) -> int:
        """Return the bytes an upload holds, or raise NotFoundError (`blob-unknown`)."""
        try:
            return self._upload_path(owner, upload).stat().st_size
        except FileNotFoundError:
            raise _no_upload() from None

    def continue_upload(self, owner: str, upload: str) -> UploadWriter:
        """Open the end of an upload.

        Raises:
            NotFoundError: `blob-unknown`.
            ConflictError: `state-conflict`, when somebody else writes to it now.
        """
        path = self._upload_path(owner, upload)
        session = self._claim(upload)
        try:
            return UploadWriter(self, path, session)
        except FileNotFoundError:
            self._release(upload, forget=True)
            raise _no_upload() from None

    def append(self, owner: str, upload: str, offset: int, source: BinaryIO) -> int:
        """Append everything `source` yields at `offset` and return the new size.

        Raises:
            NotFoundError: `blob-unknown`.
            ConflictError: `state-conflict`, when `offset` is not where the upload ends, or
                somebody else writes to it now.
            UnavailableError: `disk-full`; what was written before stays.
        """
        with contextlib.closing(self.continue_upload(owner, upload)) as writer:
            if writer.size != offset:
                raise ConflictError(
                    f"the upload holds {writer.size} bytes, not {offset}",
                    code=Code.STATE_CONFLICT,
                    hint=f"continue at byte {writer.size}",
                )
            while piece := source.read(PIECE_BYTES):
                writer.write(piece)
            return writer.size

    def finish_upload(self, owner: str, upload: str, expected: Digest) -> Digest:
        """Turn an upload into a blob; the upload is gone afterwards, whatever the outcome.

        Raises:
            NotFoundError: `blob-unknown`.
            ConflictError: `state-conflict`, when somebody writes to it now.
            InvalidError: `digest-mismatch`.
            UnavailableError: `disk-full`.
        """
        path = self._upload_path(owner, upload)
        session = self._claim(upload)
        try:
            with disk_errors():
                digest = _digest_of_file(path, session)
                if digest != expected:
                    raise _mismatch(expected, digest)
                self._adopt(path, digest)
        except FileNotFoundError:
            raise _no_upload() from None
        finally:
            path.unlink(missing_ok=True)
            self._release(upload, forget=True)
        return digest

    def cancel_upload(self, owner: str, upload: str) -> None:
        """Forget an upload, or raise NotFoundError (`blob-unknown`)."""
        path = self._upload_path(owner, upload)
        with self._lock:
            session = self._sessions.get(upload)
            if session is None or not session.busy:
                self._sessions.pop(upload, None)
        try:
            path.unlink()
        except FileNotFoundError:
            raise _no_upload() from None

    def expire_uploads(self, before: datetime) -> int:
        """Remove everything unfinished that was last written before `before`; return how many."""
        limit = before.timestamp()
        removed = 0
        for path in list(self._incoming.iterdir()):
            with contextlib.suppress(FileNotFoundError), self._lock:
                session = self._sessions.get(path.name)
                if path.stat().st_mtime < limit and not (session and session.busy):
                    path.unlink()
                    self._sessions.pop(path.name, None)
                    removed += 1
        return removed

    # ---- inside ----------------------------------------------------------------------------------

    @property
    def _incoming(self) -> Path:
        return self.root / "incoming"

    def _upload_path(self, owner: str, upload: str) -> Path:
        if not _UPLOAD.fullmatch(upload) or not upload.startswith(_mark(owner)):
            raise _no_upload()
        return self._incoming / upload

    def _claim(self, upload: str) -> _Session:
        with self._lock:
            session = self._sessions.setdefault(upload, _Session())
            if session.busy:
                raise ConflictError(
                    "another request writes to this upload",
                    code=Code.STATE_CONFLICT,
                    hint="wait until it ends",
                )
            session.busy = True
            return session

    def _release(self, upload: str, *, forget: bool = False) -> None:
        with self._lock:
            if forget:
                self._sessions.pop(upload, None)
            elif upload in self._sessions:
                self._sessions[upload].busy = False

    def _write(self, source: BinaryIO, partial: Path) -> Digest:
        hasher = hashlib.sha256()
        size = 0
        with partial.open("xb", buffering=0) as file:
            while piece := source.read(PIECE_BYTES):
                size += len(piece)
                self.check_size(size)
                hasher.update(piece)
                write_all(file.fileno(), piece)
            os.fsync(file.fileno())
        return Digest("sha256:" + hasher.hexdigest())

    def check_size(self, size: int) -> None:
        """Raise InvalidError (`too-large`) for more bytes than a blob may have."""
        if size > self.max_blob_bytes:
            raise InvalidError(
                f"a file has more than {self.max_blob_bytes} bytes",
                code=Code.TOO_LARGE,
                hint="raise the limit of the blob store, or make the file smaller",
            )

    def _adopt(self, partial: Path, digest: Digest) -> None:
        """Rename bytes that are already durable into their place, durably."""
        target = self.path(digest)
        if target.is_file():
            return
        target.parent.mkdir(exist_ok=True)
        partial.chmod(0o644)
        partial.replace(target)
        for folder in (target.parent, target.parent.parent):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


class UploadWriter:
    """The open end of an upload in a `DiskBlobs`. Hashes while it writes."""

    def __init__(self, blobs: DiskBlobs, path: Path, session: _Session) -> None:
        """Open the file of an upload that is already claimed."""
        self._blobs = blobs
        self._path = path
        self._session = session
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        self._size = os.fstat(self._fd).st_size

    @property
    def size(self) -> int:
        """Bytes the upload holds."""
        return self._size

    def write(self, piece: bytes) -> None:
        """Append a piece.

        Raises:
            InvalidError: `too-large`.
            UnavailableError: `disk-full`.
        """
        self._blobs.check_size(self._size + len(piece))
        session = self._session
        if session.hasher is not None and session.hashed == self._size:
            session.hasher.update(piece)
            session.hashed += len(piece)
        try:
            with disk_errors():
                write_all(self._fd, piece)
        except UnavailableError:
            # A part of the piece may be on the disk: the hash no longer belongs to the file.
            session.hasher = None
            raise
        self._size += len(piece)

    def close(self) -> None:
        """Let the upload go; others may continue it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._blobs._release(self._path.name)  # noqa: SLF001 - the two classes are one store


def write_all(descriptor: int, piece: bytes) -> None:
    """Write a whole piece to a file descriptor."""
    view = memoryview(piece)
    while view:
        view = view[os.write(descriptor, view) :]


def _digest_of_file(path: Path, session: _Session) -> Digest:
    """Make the bytes durable and return their digest; read them only if no hash was kept."""
    with path.open("rb", buffering=0) as file:
        os.fsync(file.fileno())
        size = os.fstat(file.fileno()).st_size
        if session.hasher is not None and session.hashed == size:
            return Digest("sha256:" + session.hasher.hexdigest())
        return Digest("sha256:" + hashlib.file_digest(file, "sha256").hexdigest())


def _mark(owner: str) -> str:
    return hashlib.sha256(owner.encode()).hexdigest()[:16]


def _unknown(digest: Digest) -> NotFoundError:
    return NotFoundError(
        f"no stored file has the digest '{digest}'",
        code=Code.BLOB_UNKNOWN,
        hint="upload it first",
    )


def _no_upload() -> NotFoundError:
    return NotFoundError(
        "there is no such upload", code=Code.BLOB_UNKNOWN, hint="start the upload again"
    )


def _mismatch(expected: Digest, found: Digest) -> InvalidError:
    return InvalidError(
        f"the bytes have the digest '{found}', not '{expected}'",
        code=Code.DIGEST_MISMATCH,
        hint="send the file again",
    )


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Turn a full disk into UnavailableError (`disk-full`)."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UnavailableError(
                "there is no space left for stored files",
                code=Code.DISK_FULL,
                hint="free some space below the data folder",
            ) from error
        raise
