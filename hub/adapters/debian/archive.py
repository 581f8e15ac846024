"""Reads Debian packages: their files, without running anything they bring."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from protocol.errors import Code, InvalidError

_MAGIC = b"!<arch>\n"
_MEMBER = 60
_SIZE = slice(48, 58)


@dataclass(frozen=True, slots=True)
class DebFile:
    """A file or a link of a package.

    Attributes:
        content: Bytes of a file; None for a link.
        link: Target of a symbolic link; None for a file.
    """

    path: str
    executable: bool = False
    content: bytes | None = None
    link: str | None = None


def read_deb(path: Path, wanted: Callable[[str], bool]) -> Iterator[DebFile]:
    """Yield the files and links of a package whose paths are wanted.

    Packages come through apt, which has checked their signatures.

    Args:
        path: The package.
        wanted: Tells from a relative path whether it is wanted.

    Raises:
        InvalidError: `base-unavailable`, for a package of a form that is not known.
    """
    with path.open("rb") as file:
        name = _seek_data(file, path.name)
        try:
            with _unpacked(file, name) as plain, tarfile.open(fileobj=plain, mode="r|") as archive:
                yield from _members(archive, wanted)
        except (tarfile.TarError, lzma.LZMAError, EOFError, zlib.error, OSError) as error:
            raise _unreadable(path.name) from error


def _members(archive: tarfile.TarFile, wanted: Callable[[str], bool]) -> Iterator[DebFile]:
    kept: dict[str, DebFile] = {}
    for member in archive:
        name = member.name.removeprefix("./").strip("/")
        if not name or member.isdir():
            continue
        if member.issym():
            if wanted(name):
                yield DebFile(name, link=member.linkname)
        elif member.islnk():
            target = kept.get(member.linkname.removeprefix("./").strip("/"))
            if wanted(name) and target is not None:
                yield DebFile(name, target.executable, target.content)
        elif member.isreg():
            source = archive.extractfile(member)
            if wanted(name) and source is not None:
                with closing(source):
                    found = DebFile(name, bool(member.mode & 0o100), source.read())
                kept[name] = found
                yield found


def _seek_data(file: BinaryIO, package: str) -> str:
    """Move to the data of a package and return the name of that member."""
    if file.read(len(_MAGIC)) != _MAGIC:
        raise _unreadable(package)
    while len(header := file.read(_MEMBER)) == _MEMBER:
        name = header[:16].decode("ascii", "replace").strip().rstrip("/")
        if name.startswith("data.tar"):
            return name
        size = int(header[_SIZE])
        file.seek(size + size % 2, 1)
    raise _unreadable(package)


def _unpacked(file: BinaryIO, name: str) -> lzma.LZMAFile | closing[BinaryIO]:
    if name.endswith(".xz"):
        return lzma.LZMAFile(file)
    if name == "data.tar":
        return closing(file)
    raise InvalidError(
        f"packages packed as '{name}' cannot be read",
        code=Code.BASE_UNAVAILABLE,
        hint="build without a base, or on Debian",
    )


def _unreadable(package: str) -> InvalidError:
    return InvalidError(
        f"the package '{package}' is damaged",
        code=Code.BASE_UNAVAILABLE,
        hint="remove the build cache and build again",
    )
