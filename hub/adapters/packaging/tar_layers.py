"""Tar layers whose bytes depend on nothing but their content.

Decides order, modes and headers: sorted names, explicit parent folders, time 0, owner 0, modes
0755 and 0644. Must not decide what goes in.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from hub.core.packaging import Layer, LayerKind
from protocol.ids import Digest

PIECE_BYTES = 1024 * 1024
_BLOCK = 512
_END = bytes(2 * _BLOCK)
_MIB = 1024 * 1024
Check = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing in a layer.

    Attributes:
        path: Relative path inside the image.
        open: Opens the content of a file; None for a folder or a link.
        size: Bytes of the content.
        executable: Whether a file gets mode 0755 instead of 0644.
        link: Target of a symbolic link.
        mode: Overrides the mode, for folders such as `tmp`.
    """

    path: str
    open: Callable[[], BinaryIO] | None = None
    size: int = 0
    executable: bool = False
    link: str | None = None
    mode: int | None = None


def file_entry(path: str, source: Path, *, executable: bool = False) -> Entry:
    """Return an entry for a file on the disk."""
    return Entry(path, lambda: source.open("rb"), source.stat().st_size, executable)


def bytes_entry(path: str, content: bytes, *, executable: bool = False) -> Entry:
    """Return an entry for bytes in memory."""
    return Entry(path, lambda: io.BytesIO(content), len(content), executable)


def write_layer(target: Path, kind: LayerKind, entries: Iterable[Entry], *, check: Check) -> Layer:
    """Write a gzip-compressed layer to `target`.

    Args:
        target: New file.
        kind: What the layer holds.
        entries: In any order; parent folders are added.
        check: Called between pieces; raises to stop.
    """
    ordered = with_parents(entries)
    level = _level(sum(entry.size for entry in ordered))
    with target.open("xb") as file:
        packed = _Hashing(file)
        # Neither time nor name in the header, so equal content gives equal bytes.
        with gzip.GzipFile("", "wb", level, fileobj=packed, mtime=0) as squeezed:
            plain = _Hashing(squeezed)
            for piece in tar_pieces(ordered):
                check()
                plain.write(piece)
    return Layer(kind, packed.digest, packed.size, plain.digest, compressed=True)


def tar_pieces(ordered: Iterable[Entry]) -> Iterator[bytes]:
    """Yield a tar of entries that are already in order."""
    for entry in ordered:
        yield _header(entry)
        if entry.open is not None:
            yield from _content(entry)
    yield _END


def with_parents(entries: Iterable[Entry]) -> list[Entry]:
    """Return entries sorted by path, together with all the folders above them."""
    found = {entry.path: entry for entry in entries}
    for path in list(found):
        for parent in list(PurePosixPath(path).parents)[:-1]:
            found.setdefault(str(parent), Entry(str(parent)))
    return [found[path] for path in sorted(found, key=lambda path: path.split("/"))]


def open_plain_tar(entries: Iterable[Entry]) -> BinaryIO:
    """Open an uncompressed tar that is made while it is read; it can be rewound."""
    return io.BufferedReader(_TarStream(with_parents(entries)), PIECE_BYTES)


def plain_layer(kind: LayerKind, entries: Iterable[Entry], *, check: Check) -> Layer:
    """Return what an uncompressed layer would be, without storing it."""
    hasher = hashlib.sha256()
    size = 0
    for piece in tar_pieces(with_parents(entries)):
        check()
        hasher.update(piece)
        size += len(piece)
    digest = Digest("sha256:" + hasher.hexdigest())
    return Layer(kind, digest, size, digest, compressed=False)


def _header(entry: Entry) -> bytes:
    info = tarfile.TarInfo(entry.path)
    if entry.link is not None:
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.link, 0o777
    elif entry.open is None:
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    else:
        info.size, info.mode = entry.size, 0o755 if entry.executable else 0o644
    if entry.mode is not None:
        info.mode = entry.mode
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _content(entry: Entry) -> Iterator[bytes]:
    if entry.open is None:
        return
    left = entry.size
    with closing(entry.open()) as source:
        while left and (piece := source.read(min(PIECE_BYTES, left))):
            left -= len(piece)
            yield piece
    if left:
        raise RuntimeError(f"{entry.path!r} became shorter while it was packed")
    yield bytes(-entry.size % _BLOCK)


def _level(size: int) -> int:
    """Return the gzip level: the last percents of large layers are not worth the wait."""
    if size <= 8 * _MIB:
        return 6
    return 4 if size <= 32 * _MIB else 1


class _Hashing:
    """Passes bytes on, and remembers their digest and number."""

    def __init__(self, target: BinaryIO | gzip.GzipFile) -> None:
        self._target = target
        self._hasher = hashlib.sha256()
        self.size = 0

    def write(self, piece: bytes) -> int:
        self._hasher.update(piece)
        self.size += len(piece)
        self._target.write(piece)
        return len(piece)

    def flush(self) -> None:
        self._target.flush()

    @property
    def digest(self) -> Digest:
        return Digest("sha256:" + self._hasher.hexdigest())


class _TarStream(io.RawIOBase):
    """A tar that exists only while it is read."""

    def __init__(self, ordered: list[Entry]) -> None:
        self._ordered = ordered
        self._restart()

    def _restart(self) -> None:
        self._pieces = tar_pieces(self._ordered)
        self._rest = memoryview(b"")
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR and offset == 0:
            return self._position
        if whence != io.SEEK_SET or offset != 0:
            raise io.UnsupportedOperation("only rewinding is possible")
        self._restart()
        return 0

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override] # any writable buffer
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        self._position += count
        return count
