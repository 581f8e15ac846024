"""Files that are whole or absent after a power cut.

Decides nothing about content. A rename is only durable once its folder is synced; a whole tree is
made durable with one `syncfs`, because thousands of `fsync` calls cost minutes on an SD card.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from protocol.errors import Code, DeviceError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn "no space left" below into DeviceError (`disk-full`) that names `what`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DeviceError(
            f"there is no space left on the disk for {what!r}",
            code=Code.DISK_FULL,
            hint="free some space, or remove modules this device does not need",
        ) from error


def write_atomically(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace the file at `path` by `data`; after a crash it holds the old or the new bytes.

    Raises:
        DeviceError: `disk-full`.
    """
    temporary = path.with_name(f".{path.name}.new")
    with disk_errors(path.name):
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_filesystem(path: Path) -> None:
    """Make everything on the file system that holds the folder `path` durable.

    Raises:
        DeviceError: `disk-full`, when what waited to be written did not fit.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with disk_errors(path.name):
            if _libc_syncfs(descriptor) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(descriptor)


def _libc_syncfs(descriptor: int) -> int:
    return int(ctypes.CDLL(None, use_errno=True).syncfs(descriptor))
