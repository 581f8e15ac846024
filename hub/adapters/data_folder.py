"""One hub per data folder: a lock that ends with its process."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from hub.adapters.blobs import disk_errors
from protocol.errors import Code, ConflictError, InvalidError

_LOCK = "hub.lock"


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep `folder`, made when it is not there, to this process while the block runs.

    Raises:
        ConflictError: `state-conflict`, when another hub runs on it.
        InvalidError: `settings-invalid`, when it cannot be written.
        UnavailableError: `disk-full`.
    """
    descriptor = _open(folder)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ConflictError(
            f"another hub runs on {str(folder)!r}",
            code=Code.STATE_CONFLICT,
            hint="stop it first, or choose another folder: `rimward hub up --data ...`",
        ) from error
    try:
        yield
    finally:
        os.close(descriptor)


def _open(folder: Path) -> int:
    try:
        with disk_errors():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise unusable(folder, error) from error


def unusable(path: Path, error: OSError) -> InvalidError:
    """Return the error for a file or folder of the hub that cannot be written."""
    return InvalidError(
        f"{str(path)!r} cannot be written: {error.strerror or error}",
        code=Code.SETTINGS_INVALID,
        hint="make it writable for the hub's user, or choose another folder: "
        "`rimward hub up --data ...`",
    )
