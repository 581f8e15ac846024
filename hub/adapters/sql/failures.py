"""Which of our errors a failure of the database is; what is not here is a bug and may crash."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import psycopg

from protocol.errors import Code, ConflictError, FleetError, UnavailableError


def translate(
    error: BaseException | None, database: str, *, writing: bool = True
) -> FleetError | None:
    """Return the FleetError for an exception of `sqlite3` or `psycopg`, None for a bug of ours.

    Args:
        error: What the driver raised.
        database: Name of the database as people may see it, without secrets.
        writing: Whether the connection may write; a refused write on one that may not is a bug.
    """
    if isinstance(error, sqlite3.Error):
        build = _sqlite_error(error, writing=writing)
    elif isinstance(error, psycopg.Error):
        build = _postgres_error(error, writing=writing)
    else:
        return None
    return None if build is None else build(database, _words(error))


def locked(database: str, finding: str = "") -> UnavailableError:
    """Return the error for a database that others keep to themselves."""
    del finding  # the drivers' words say no more
    return _unavailable(
        f"database {database!r} is locked by another transaction or program",
        "stop the other program that uses it, or try again later",
    )


def damaged(database: str, finding: str) -> UnavailableError:
    """Return the error for a database that cannot be trusted any more."""
    return UnavailableError(
        f"database {database!r} is damaged: {finding}",
        code=Code.DATABASE_CORRUPT,
        hint="stop the hub, move the database away (with its '-wal' and '-shm' files, if there are "
        "any), put a backup in its place and start again",
    )


def _unopened(database: str, finding: str) -> UnavailableError:
    return _unavailable(
        f"database {database!r} cannot be opened for writing: {finding}",
        "its folder must exist, and folder and file be writable for the hub's user",
    )


def _unreadable(database: str, finding: str) -> UnavailableError:
    return _unavailable(
        f"database {database!r} cannot be read or written: {finding}",
        "look at the disk and its file system: the kernel's log tells what is wrong",
    )


def _silent(database: str, finding: str) -> UnavailableError:
    return _unavailable(
        f"database {database!r} does not answer: {finding}",
        "start PostgreSQL, or correct the hub's database URL",
    )


def _refused(database: str, finding: str) -> UnavailableError:
    return _unavailable(
        f"database {database!r} refuses the hub: {finding}",
        "correct the hub's database URL, or create the database and its user",
    )


def _read_only(database: str, finding: str) -> UnavailableError:
    return _unavailable(
        f"database {database!r} is read-only: {finding}",
        "point the hub's database URL at the primary server",
    )


def _failed(database: str, finding: str) -> UnavailableError:
    return _unavailable(f"database {database!r} failed: {finding}", "look at the log of PostgreSQL")


def _full(database: str, finding: str) -> UnavailableError:
    return UnavailableError(
        f"no space is left for database {database!r}: {finding}",
        code=Code.DISK_FULL,
        hint="free space on its disk; nothing that was committed is lost",
    )


def _contradicted(database: str, finding: str) -> ConflictError:
    return ConflictError(
        f"database {database!r} refuses what contradicts it: {finding}",
        code=Code.STATE_CONFLICT,
        hint="read what is there again, then decide anew",
    )


def _unavailable(message: str, hint: str) -> UnavailableError:
    return UnavailableError(message, code=Code.DATABASE_UNAVAILABLE, hint=hint)


_Build = Callable[[str, str], FleetError]

_PRIMARY = 0xFF  # SQLite keeps the details of a result code in the higher bits
_SQLITE: dict[int, _Build] = {
    sqlite3.SQLITE_BUSY: locked,
    sqlite3.SQLITE_LOCKED: locked,
    sqlite3.SQLITE_PROTOCOL: locked,
    sqlite3.SQLITE_CANTOPEN: _unopened,
    sqlite3.SQLITE_PERM: _unopened,
    sqlite3.SQLITE_READONLY: _unopened,
    sqlite3.SQLITE_IOERR: _unreadable,
    sqlite3.SQLITE_FULL: _full,
    sqlite3.SQLITE_CORRUPT: damaged,
    sqlite3.SQLITE_NOTADB: damaged,
    sqlite3.SQLITE_CONSTRAINT: _contradicted,
}
_PG_READ_ONLY = "25006"
# By SQLSTATE, then by its class, the first two characters.
_POSTGRES: dict[str, _Build] = {
    "25P03": _failed,  # the server ended a transaction that took too long
    "25P04": _failed,
    "3D000": _refused,  # no such database
    "42501": _refused,  # no permission
    "53100": _full,
    "55P03": locked,
    "XX001": damaged,
    "XX002": damaged,
    _PG_READ_ONLY: _read_only,
    "08": _silent,
    "23": _contradicted,
    "28": _refused,
    "40": _failed,
    "53": _failed,
    "57": _failed,
    "58": _failed,
}


def _sqlite_error(error: sqlite3.Error, *, writing: bool) -> _Build | None:
    # Errors of the driver itself have no code.
    code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY
    if code == sqlite3.SQLITE_READONLY and not writing:
        return None
    return _SQLITE.get(code)


def _postgres_error(error: psycopg.Error, *, writing: bool) -> _Build | None:
    state = error.sqlstate
    if state is None:
        # Without a state it never reached the server: a lost connection, or our own mistake.
        is_lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        return _silent if is_lost else None
    if state == _PG_READ_ONLY and not writing:
        return None
    return _POSTGRES.get(state) or _POSTGRES.get(state[:2])


def _words(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
