"""Reads an archive somebody sent. It may be hostile: nothing in it is trusted, nothing extracted.

Decides what an acceptable archive is: plain or gzip tar, regular files and folders only, relative
paths without `..`, no name twice, all of it within limits. Files land under numbers in a staging
folder, so no path from the archive ever reaches the disk. The standard library's reader is not
used: its handling of sizes and of extension headers has no bounds.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NoReturn

from hub.adapters.packaging.tar_layers import PIECE_BYTES, Entry, file_entry
from protocol.errors import Code, InvalidError

_BLOCK = 512
_EXTENSION_LIMIT = 64 * 1024
_PATH_LIMIT = 1024
_NAME_LIMIT = 255
_GZIP = b"\x1f\x8b"
_REFUSED = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a pipe",
    b"S": "a sparse file",
}


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """Most entries, bytes unpacked and depth of folders of one archive."""

    entries: int = 10_000
    total_bytes: int = 512 * 1024 * 1024
    depth: int = 32


@dataclass(slots=True)
class _Names:
    """Names seen so far: no file twice, and no file where a folder is."""

    files: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)

    def add(self, path: str, *, is_file: bool) -> None:
        parts = path.split("/")
        parents = {"/".join(parts[:n]) for n in range(1, len(parts))}
        taken = path in self.files or (is_file and path in self.folders)
        if taken or not parents.isdisjoint(self.files):
            _refuse(f"{path[:120]!r} stands in the archive twice")
        self.folders |= parents
        (self.files if is_file else self.folders).add(path)


@dataclass(frozen=True, slots=True)
class _Header:
    path: str
    size: int
    kind: bytes
    executable: bool


def stage_archive(
    archive: BinaryIO, staging: Path, limits: ArchiveLimits, *, check: Callable[[], None]
) -> list[Entry]:
    """Copy the files of an archive to numbered files in `staging`.

    Args:
        archive: A tar, plain or gzip.
        staging: An empty folder.
        limits: What is acceptable.
        check: Called between pieces; raises to stop.

    Returns:
        The regular files, as layer entries with the paths they have in the archive.

    Raises:
        InvalidError: `request-invalid` for what is not acceptable, `too-large`.
    """
    reader = _Reader(_unpacked(archive), limits.total_bytes)
    names = _Names()
    staged: list[Entry] = []
    for header in _headers(reader, limits):
        check()
        path = _clean(header.path, limits.depth)
        if header.kind == b"5" or header.path.endswith("/"):
            if path:
                names.add(path, is_file=False)
            reader.skip(header.size)
            continue
        if not path:
            _refuse("a file without a name is in the archive")
        names.add(path, is_file=True)
        target = staging / f"{len(staged):06d}"
        reader.copy(header.size, target, check)
        staged.append(file_entry(path, target, executable=header.executable))
    return [entry for entry in staged if not _is_bytecode(entry.path)]


class _Reader:
    """Reads exactly, within a budget."""

    def __init__(self, source: BinaryIO, limit: int) -> None:
        self._source = source
        self._left = limit

    def exactly(self, size: int) -> bytes:
        """Return `size` bytes, or raise InvalidError."""
        self._afford(size)
        self._left -= size
        try:
            data = self._source.read(size)
        except (OSError, EOFError, zlib.error) as error:
            raise _damaged() from error
        if len(data) != size:
            raise _damaged()
        return data

    def skip(self, size: int) -> None:
        """Read past a body and its padding."""
        self._afford(size)
        for count in _pieces(size + -size % _BLOCK):
            self.exactly(count)

    def copy(self, size: int, target: Path, check: Callable[[], None]) -> None:
        """Write a body to a new file, and read past its padding."""
        self._afford(size)
        with target.open("xb", buffering=0) as file:
            for count in _pieces(size):
                check()
                file.write(self.exactly(count))
        self.exactly(-size % _BLOCK)

    def _afford(self, size: int) -> None:
        if size > self._left:
            raise InvalidError(
                "the archive is larger than allowed when unpacked",
                code=Code.TOO_LARGE,
                hint="leave data and environments out of the source folder",
            )


def _unpacked(archive: BinaryIO) -> BinaryIO:
    start = archive.read(2)
    archive.seek(0)
    return io.BufferedReader(_Gunzip(archive)) if start == _GZIP else archive


class _Gunzip(io.RawIOBase):
    """Unpacks gzip no further than it is read, so a bomb goes no further than the budget."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._inflate = zlib.decompressobj(wbits=31)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override] # any writable buffer
        while not self._inflate.eof:
            squeezed = self._inflate.unconsumed_tail or self._source.read(64 * 1024)
            if not squeezed:
                raise EOFError("the archive ends too early")
            plain = self._inflate.decompress(squeezed, len(buffer))
            if plain:
                buffer[: len(plain)] = plain
                return len(plain)
        return 0


def _headers(reader: _Reader, limits: ArchiveLimits) -> Iterator[_Header]:
    extra: dict[str, str] = {}
    blocks = entries = 0
    while entries <= limits.entries and blocks <= limits.entries * 3:
        block = reader.exactly(_BLOCK)
        blocks += 1
        if not any(block):
            return
        header = _parse(block)
        if header.kind in (b"x", b"g", b"L"):
            body = reader.exactly(_bounded(header.size))
            reader.exactly(-header.size % _BLOCK)
            extra |= _extension(header.kind, body)
            continue
        entries += 1
        if entries <= limits.entries:
            yield _merged(header, extra)
        extra = {}
    raise InvalidError(
        "the archive has more entries than allowed",
        code=Code.TOO_LARGE,
        hint="leave data and environments out of the source folder",
    )


def _parse(block: bytes) -> _Header:
    unsigned = sum(block[:148]) + 8 * ord(" ") + sum(block[156:])
    if _octal(block[148:156]) != unsigned:
        raise _damaged()
    kind = block[156:157]
    if kind in _REFUSED:
        _refuse(f"{_REFUSED[kind]} is in the archive")
    if kind not in (b"0", b"\0", b"5", b"x", b"g", b"L"):
        _refuse(f"an entry of the unknown type {kind!r} is in the archive")
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and block[345] != 0:
        name = f"{_text(block[345:500])}/{name}"
    return _Header(name, _number(block[124:136]), kind, bool(_octal(block[100:108]) & 0o100))


def _merged(header: _Header, extra: Mapping[str, str]) -> _Header:
    size = header.size
    if "size" in extra:
        if not (extra["size"].isdecimal() and extra["size"].isascii() and len(extra["size"]) < 20):  # noqa: PLR2004 - digits of 2**64
            raise _damaged()
        size = int(extra["size"])
    return _Header(extra.get("path", header.path), size, header.kind, header.executable)


def _extension(kind: bytes, body: bytes) -> dict[str, str]:
    if kind == b"L":
        return {"path": _text(body)}
    found = dict(_records(body))
    if any(key.startswith("GNU.sparse") for key in found):
        _refuse("a sparse file is in the archive")
    if kind == b"g":
        if found.keys() & {"path", "size"}:
            _refuse("the archive gives all its files one name or size")
        return {}
    return {key: value for key, value in found.items() if key in ("path", "size")}


def _records(body: bytes) -> Iterator[tuple[str, str]]:
    while body:
        digits, blank, _ = body[:8].partition(b" ")
        if not blank or not digits.isdigit():
            raise _damaged()
        length = int(digits)
        record = body[len(digits) + 1 : length]
        key, equals, value = record.partition(b"=")
        if length <= len(digits) + 1 or length > len(body) or not equals or value[-1:] != b"\n":
            raise _damaged()
        yield _text(key), _text(value[:-1], limit=_EXTENSION_LIMIT)
        body = body[length:]


def _clean(path: str, depth: int) -> str:
    """Return a path without `.` parts; empty for the root."""
    if path.startswith("/") or "\\" in path or not path.isprintable():
        _refuse(f"the path {path[:120]!r} is not acceptable")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        _refuse(f"the path {path[:120]!r} leaves the archive")
    if len(path) > _PATH_LIMIT or len(parts) > depth or any(len(p) > _NAME_LIMIT for p in parts):
        _refuse(f"the path {path[:120]!r} is too long")
    return "/".join(parts)


def _number(raw: bytes) -> int:
    """Return a size: octal, or binary with the top bit set; never negative."""
    if raw[0] == 0x80:  # noqa: PLR2004 - the marker of a binary number
        return int.from_bytes(raw[1:], "big")
    return _octal(raw)


def _octal(raw: bytes) -> int:
    text = raw.strip(b" \0")
    if not text:
        return 0
    if any(byte not in b"01234567" for byte in text):
        raise _damaged()
    return int(text, 8)


def _text(raw: bytes, *, limit: int = _PATH_LIMIT) -> str:
    try:
        text = raw.partition(b"\0")[0].decode()
    except UnicodeDecodeError as error:
        raise _damaged() from error
    if len(text) > limit:
        _refuse("a path in the archive is too long")
    return text


def _bounded(size: int) -> int:
    if size > _EXTENSION_LIMIT:
        _refuse("an extension header in the archive is too large")
    return size


def _pieces(size: int) -> Iterator[int]:
    while size:
        count = min(size, PIECE_BYTES)
        yield count
        size -= count


def _is_bytecode(path: str) -> bool:
    return path.endswith(".pyc") or "__pycache__" in path.split("/")


def _damaged() -> InvalidError:
    return InvalidError(
        "the archive is damaged or not a tar", code=Code.REQUEST_INVALID, hint="pack it again"
    )


def _refuse(message: str) -> NoReturn:
    raise InvalidError(
        message, code=Code.REQUEST_INVALID, hint="pack regular files and folders only"
    )
