"""Unpacks one image layer, trusting nothing in it but its digest.

Decides what a layer may hold: folders, regular files, symbolic links and hard links that stay
inside. Everything else (devices, sockets, absolute or climbing names, set-id bits, more than the
quota) is refused or dropped. Must not write a byte outside the folder it is given.
"""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from gzip import BadGzipFile, GzipFile
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from agent.adapters.durable_files import disk_errors
from protocol.errors import Code, DeviceError

_CHUNK = 1024 * 1024
_PATH_LIMIT = 1024
_NAME_LIMIT = 255
_DEPTH_LIMIT = 64


@dataclass(frozen=True, slots=True)
class Quota:
    """Most a single layer may unpack to.

    Attributes:
        bytes: In all files together.
        entries: Files, folders and links.
        ratio: Bytes for each compressed byte.
        ratio_free: Bytes to which the ratio does not apply.
    """

    bytes: int = 16 * 1024**3
    entries: int = 200_000
    ratio: int = 250
    ratio_free: int = 64 * 1024**2


class _Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Forward:
    """What tarfile reads from: forward only, bounded in total, and in what it holds at once.

    A size that goes backwards or a header of gigabytes is refused here, below tarfile.
    """

    def __init__(self, source: _Source, limit: int) -> None:
        self._source = source
        self._limit = limit
        self._position = 0
        self.last = b""

    def tell(self) -> int:
        return self._position

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _CHUNK:
            raise _unsuitable("has a header of an absurd size")
        data = self.last = self._source.read(size)
        self._position += len(data)
        if self._position > self._limit:
            raise _unsuitable(f"unpacks to more than {self._limit} bytes")
        return data

    def seek(self, position: int) -> int:
        if position < self._position:
            raise _unsuitable("points backwards")
        while self._position < position:
            if not self.read(min(_CHUNK, position - self._position)):
                break
        return self._position


def unpack_layer(archive: Path, target: Path, *, gzip: bool, quota: Quota | None = None) -> None:
    """Unpack the layer in the file `archive` into the empty folder `target`.

    Whiteouts (`.wh.*`) are kept as empty files; assembling the layers is what gives them meaning.
    Files end up read-only, executable if they were.

    Raises:
        DeviceError: `image-unsuitable`, when the layer holds something it may not; `disk-full`.
    """
    allowed = quota or Quota()
    with disk_errors(archive.name), archive.open("rb") as file, _refusals():
        if not gzip:
            _unpack(_Forward(file, _total(allowed)), target, allowed)
            return
        size = os.fstat(file.fileno()).st_size
        limit = min(_total(allowed), size * allowed.ratio + allowed.ratio_free)
        with GzipFile(fileobj=file) as plain:
            _unpack(_Forward(plain, limit), target, allowed)


def _total(quota: Quota) -> int:
    return quota.bytes + quota.entries * tarfile.RECORDSIZE


def _unpack(source: _Forward, target: Path, quota: Quota) -> None:
    with tarfile.open(fileobj=_as_file(source), mode="r:", errorlevel=2) as archive:
        for count, member in enumerate(_members(archive), start=1):
            if count > quota.entries:
                raise _unsuitable(f"has more than {quota.entries} entries")
            _extract(source, member, target)
    if source.last.strip(b"\0"):  # tarfile stops at a bad header as if it were the end
        raise _unsuitable("is cut off or damaged")


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := archive.next()) is not None:
        # else every header of a layer stays in memory
        archive.members = []  # type: ignore[attr-defined]  # not in the stubs
        yield member


def _extract(source: _Forward, member: tarfile.TarInfo, target: Path) -> None:
    relative = _relative(member.name)
    if not relative.parts:
        return
    path = _parent(target, relative) / relative.name
    if member.isdir():
        if not _is_folder(path):
            path.mkdir(mode=0o755)
    elif member.isreg() and member.sparse is None:
        _write(source, member, path)
    elif member.issym():
        path.symlink_to(_inside_link(member, relative))
    elif member.islnk():
        _hard_link(member, path, target)
    else:
        raise _unsuitable(f"holds {member.name[:80]!r}, which is no file, folder or link")


def _write(source: _Forward, member: tarfile.TarInfo, path: Path) -> None:
    mode = 0o555 if member.mode & 0o111 else 0o444
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123 - wraps an open descriptor
        missing = member.size
        while missing:
            piece = source.read(min(_CHUNK, missing))
            if not piece:
                raise _unsuitable(f"ends inside {member.name[:80]!r}")
            file.write(piece)
            missing -= len(piece)
        os.fchmod(file.fileno(), mode)


def _relative(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    too_long = len(os.fsencode(name)) > _PATH_LIMIT or len(path.parts) > _DEPTH_LIMIT
    if path.is_absolute() or ".." in path.parts or too_long or "\0" in name:
        raise _unsuitable(f"holds the name {name[:80]!r}")
    if any(len(os.fsencode(part)) > _NAME_LIMIT for part in path.parts):
        raise _unsuitable(f"holds the name {name[:80]!r}")
    return path


def _parent(target: Path, relative: PurePosixPath) -> Path:
    """Return the real folder an entry belongs to; made if missing, never through a link."""
    folder = target
    for part in relative.parts[:-1]:
        folder = folder / part
        if not _is_folder(folder):
            folder.mkdir(mode=0o755)
    return folder


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _inside_link(member: tarfile.TarInfo, relative: PurePosixPath) -> str:
    """Return the target of a symbolic link, relative and inside the image."""
    link = PurePosixPath(member.linkname)
    depth = len(relative.parts) - 1
    if link.is_absolute():  # absolute inside an image means the image's own root
        link = PurePosixPath(*[".."] * depth, *link.parts[1:])
    level = depth
    for part in link.parts:
        level += -1 if part == ".." else 1
        if level < 0:
            raise _unsuitable(f"holds the link {member.name[:80]!r} that leads outside")
    if len(os.fsencode(link)) > _PATH_LIMIT:
        raise _unsuitable(f"holds the link {member.name[:80]!r} that is too long")
    return str(link)


def _hard_link(member: tarfile.TarInfo, path: Path, target: Path) -> None:
    relative = _relative(member.linkname)
    folder = target
    for part in relative.parts[:-1]:
        folder = folder / part
        if not _is_folder(folder):
            raise _unsuitable(f"holds the hard link {member.name[:80]!r} to nothing")
    origin = folder / relative.name
    if origin.is_symlink() or not origin.is_file():
        raise _unsuitable(f"holds the hard link {member.name[:80]!r} to nothing")
    os.link(origin, path, follow_symlinks=False)


@contextmanager
def _refusals() -> Iterator[None]:
    """Name what the libraries say about a damaged or hostile archive."""
    try:
        yield
    except (tarfile.TarError, zlib.error, BadGzipFile, EOFError, ValueError) as error:
        raise _unsuitable(f"cannot be read ({type(error).__name__})") from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise _unsuitable("holds the same name twice, or a name below a file") from error


def _unsuitable(why: str) -> DeviceError:
    return DeviceError(
        f"a layer of the image {why}",
        code=Code.IMAGE_UNSUITABLE,
        hint="build the image again with `rimward image create`, and do not trust this one",
    )


def _as_file(source: _Forward) -> BinaryIO:
    return source  # type: ignore[return-value]  # tarfile needs read, seek and tell, nothing else
