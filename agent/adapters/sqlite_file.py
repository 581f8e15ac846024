"""Opens `agent.db`: makes it whole at once, brings its schema up to date, sets damage aside.

A new file is prepared beside its place and renamed into it, so a file that is there and empty is
damage, never a start that was interrupted.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import zlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from agent.adapters.durable_files import sync_directory
from agent.migrations import load_migrations
from protocol.errors import Code, ConflictError, FleetError, UnavailableError

KEPT_DAMAGED_FILES = 3
_EPOCH = re.compile(r"[0-9a-f]{16}")
_PLAUSIBLE_VERSION = 1000  # beyond it, the number itself is damage
_WAL_LIMIT_BYTES = 16 * 1024 * 1024
_BUSY_SECONDS = 1.0
_SIDES = ("", "-wal", "-shm", "-mark")
_PRIMARY = 0xFF  # the low byte of an extended result code


class DamagedError(Exception):
    """The file is not a store of ours in one piece; never leaves the adapters."""


@dataclass(frozen=True, slots=True)
class OpenFile:
    """An open store.

    Attributes:
        connection: In autocommit mode, WAL, synchronous=FULL.
        epoch: 16 hexadecimal digits.
        set_aside: Where the damaged file went that stood here before, if one did.
    """

    connection: sqlite3.Connection
    epoch: str
    set_aside: Path | None


def open_file(path: Path, now: datetime, new_epoch: str) -> OpenFile:
    """Open the store at `path`; make it when it is not there or not whole.

    Args:
        path: The file; its folder is made when missing.
        now: Names a damaged file that is set aside.
        new_epoch: Epoch of the store, should a new one be made.

    Raises:
        FleetError: `database-newer`, `database-unavailable`, `disk-full`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not any(_side(path, side).exists() for side in _SIDES):
            _create(path, new_epoch)
        return _open_or_replace(path, now, new_epoch)
    except (sqlite3.Error, OSError) as error:
        raise translated(error, path) from error


def _open_or_replace(path: Path, now: datetime, new_epoch: str) -> OpenFile:
    try:
        return OpenFile(*_open_whole(path), set_aside=None)
    except DamagedError:
        set_aside = _set_aside(path, now)
    _create(path, new_epoch)
    try:
        return OpenFile(*_open_whole(path), set_aside=set_aside)
    except DamagedError as error:
        raise unavailable(path, "cannot be read back after it was written") from error


def is_damage(error: sqlite3.Error) -> bool:
    """Tell whether SQLite says that the content of the file is wrong."""
    return _primary(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def translated(error: Exception, path: Path) -> FleetError:
    """Return our error for one of SQLite's or the file system's."""
    if isinstance(error, sqlite3.Error) and _primary(error) == sqlite3.SQLITE_FULL:
        return disk_full(path)
    if isinstance(error, sqlite3.Error) and is_damage(error):
        return UnavailableError(
            f"the store {str(path)!r} is damaged",
            code=Code.DATABASE_CORRUPT,
            hint="restart the agent: it sets the damaged file aside and starts a new one",
        )
    return unavailable(path, f"cannot be used: {error}")


def disk_full(path: Path) -> UnavailableError:
    """Return the error for a store that may not or cannot grow."""
    return UnavailableError(
        f"there is no space left for the store {str(path)!r}",
        code=Code.DISK_FULL,
        hint="free some space, or let the device reach its hub so that it can hand over messages",
    )


def unavailable(path: Path, why: str) -> UnavailableError:
    """Return the error for a store that must be opened anew."""
    return UnavailableError(
        f"the store {str(path)!r} {why}",
        code=Code.DATABASE_UNAVAILABLE,
        hint="check the disk and the rights of the agent's user, then restart the agent",
    )


def _open_whole(path: Path) -> tuple[sqlite3.Connection, str]:
    if not path.exists():
        raise DamagedError  # a log without its file
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    try:
        return connection, _check(connection, path)
    except sqlite3.Error as error:
        connection.close()
        # A missing table is an ordinary SQL error, and damage all the same.
        if is_damage(error) or _primary(error) == sqlite3.SQLITE_ERROR:
            raise DamagedError from error
        raise
    except BaseException:
        connection.close()
        raise


def _configure(connection: sqlite3.Connection) -> None:
    # Damaged text must reach the checksum instead of failing in the driver.
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")


def _check(connection: sqlite3.Connection, path: Path) -> str:
    """Return the epoch of a file that is whole and at today's version."""
    migrations = load_migrations()
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if not 0 < version < _PLAUSIBLE_VERSION:
        raise DamagedError
    if version > len(migrations):
        raise ConflictError(
            f"the store {str(path)!r} has version {version}, this agent knows {len(migrations)}",
            code=Code.DATABASE_NEWER,
            hint="install the newer agent again; an older one cannot read its store",
        )
    _configure(connection)
    if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise DamagedError
    _migrate(connection, migrations, version)
    row = connection.execute("SELECT epoch FROM life WHERE id = 1").fetchone()
    if row is None or not _EPOCH.fullmatch(row[0]):
        raise DamagedError
    # After a failed sync the log's pages are suspect: write them again, into the file itself.
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return str(row[0])


def _migrate(connection: sqlite3.Connection, migrations: list[str], version: int) -> None:
    for number, script in enumerate(migrations[version:], start=version + 1):
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;"
            )
        finally:
            if connection.in_transaction:
                connection.rollback()


def _create(path: Path, epoch: str) -> None:
    aside = path.with_name(f"{path.name}.new")
    for side in ("", "-journal"):
        _side(aside, side).unlink(missing_ok=True)
    connection = sqlite3.connect(aside, isolation_level=None)
    try:
        # Without a log yet: what a commit here confirmed is in the file that is renamed.
        connection.execute("PRAGMA synchronous = FULL")
        _migrate(connection, load_migrations(), 0)
        connection.execute("INSERT INTO life (id, epoch) VALUES (1, ?)", (epoch,))
    finally:
        connection.close()
    aside.chmod(0o600)  # the log takes its rights from the file
    aside.replace(path)
    sync_directory(path.parent)


def _set_aside(path: Path, now: datetime) -> Path:
    """Move the file and what belongs to it out of the way; keep a few, for whoever looks."""
    stamp = now.strftime("%Y%m%dT%H%M%S%fZ")
    target = path.with_name(f"{path.name}.damaged-{stamp}")
    for side in _SIDES:
        if _side(path, side).exists():
            _side(path, side).replace(_side(target, side))
    stems = {
        name.name.removesuffix("-wal").removesuffix("-shm").removesuffix("-mark")
        for name in path.parent.glob(f"{path.name}.damaged-*")
    }
    for stem in sorted(stems)[:-KEPT_DAMAGED_FILES]:
        for side in _SIDES:
            _side(path.with_name(stem), side).unlink(missing_ok=True)
    sync_directory(path.parent)
    return target


def _side(path: Path, side: str) -> Path:
    return path.with_name(path.name + side)


def _primary(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & _PRIMARY


class HighWater:
    """The highest number given out, in a file of its own beside the store.

    Written after each commit without a sync, so it costs nothing and can only be behind after a
    power cut; but when the store's log was truncated or damaged, it tells that numbers are gone
    which the hub may know, and they are not given out twice.
    """

    _SIZE = 64

    def __init__(self, path: Path, epoch: str) -> None:
        self._epoch = epoch
        self._handle = os.open(_side(path, "-mark"), os.O_RDWR | os.O_CREAT, 0o600)

    def read(self) -> int:
        """Return the number, 0 when there is none for this epoch."""
        text = os.pread(self._handle, self._SIZE, 0).decode("ascii", "replace")
        words = text.split()
        if len(words) == 3 and text.rstrip(" ") == self._line(words[1]).rstrip(" "):  # noqa: PLR2004 - epoch, number, checksum
            return int(words[1])
        return 0

    def write(self, seq: int) -> None:
        """Note the number. A failure is harmless: the store itself is what counts."""
        with contextlib.suppress(OSError):
            os.pwrite(self._handle, self._line(str(seq)).encode(), 0)

    def close(self) -> None:
        """Release the file."""
        os.close(self._handle)

    def _line(self, seq: str) -> str:
        content = f"{self._epoch} {seq}"
        return f"{content} {zlib.crc32(content.encode()):08x}".ljust(self._SIZE)
