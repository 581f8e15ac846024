"""Connections to SQLite and PostgreSQL: who may write, what a commit promises, how long to wait.

Both databases get two pools. One connection writes: its transactions exclude every other writer of
the same database from their first moment on, so a decision made from what was read still holds when
it is written. The others read a snapshot and cannot write.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.abc import Buffer
from psycopg.types.string import StrBinaryDumper, StrDumperUnknown
from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from hub.adapters.sql.failures import translate
from protocol.errors import Code, InvalidError

_READERS = 5
_MORE_READERS = 11
_JOURNAL_LIMIT_BYTES = 64 * 1024 * 1024
_CACHE_KIB = 32 * 1024
# A server that vanished without a word is noticed after so long.
_SILENT_SECONDS = 30
# A hub that stopped in the middle of a transaction must not keep the others out for ever.
_IDLE_SECONDS = 60
# Programs in one database but different schemas do not wait for each other.
_LOCK_POSTGRES = (
    f"SELECT set_config('idle_in_transaction_session_timeout', '{_IDLE_SECONDS}s', true), "
    "pg_advisory_xact_lock(hashtext('rimward'), hashtext(coalesce(current_schema()::text, '')))"
)


@dataclass(frozen=True, slots=True)
class Engines:
    """The two pools of one database.

    Attributes:
        database: Its name as people may see it, without secrets.
    """

    database: str
    writers: Engine
    readers: Engine

    def close(self) -> None:
        """Release every connection that is not in use."""
        self.readers.dispose()
        self.writers.dispose()


def make_engines(url: str, *, wait_seconds: float) -> Engines:
    """Return the pools for a URL; nothing is opened yet.

    Args:
        url: `sqlite:///path` or `postgresql+psycopg://user:password@host:port/database`.
        wait_seconds: How long a transaction waits for a lock or a free connection.

    Raises:
        InvalidError: `settings-invalid`, for any other URL.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed, wait_seconds)
    return _postgres(parsed, wait_seconds)


def _parse(url: str) -> URL:
    hint = "write `sqlite:///folder/hub.db` or `postgresql+psycopg://user:password@host/database`"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:  # a port that is no number is a ValueError
        # The text may hold a password, so it is not repeated.
        raise InvalidError(
            "the database URL cannot be read", code=Code.SETTINGS_INVALID, hint=hint
        ) from error
    is_file = parsed.drivername == "sqlite" and parsed.database not in {None, "", ":memory:"}
    is_server = parsed.drivername in {"postgresql", "postgresql+psycopg"}
    if not is_file and not is_server:
        shown = parsed.render_as_string(hide_password=True)
        raise InvalidError(
            f"database {shown!r} is of no kind the hub knows",
            code=Code.SETTINGS_INVALID,
            hint=hint,
        )
    return parsed.set(drivername="postgresql+psycopg") if is_server else parsed


def _pools(wait_seconds: float) -> tuple[dict[str, Any], dict[str, Any]]:
    # Writers queue for the one connection: in order, and without polling the database's lock.
    writing = {"pool_size": 1, "max_overflow": 0, "pool_timeout": wait_seconds}
    reading = {
        "pool_size": _READERS,
        "max_overflow": _MORE_READERS,
        "pool_timeout": wait_seconds,
    }
    return writing, reading


def _translate_errors(engine: Engine, database: str, *, writing: bool) -> None:
    def raise_ours(context: ExceptionContext) -> None:
        if context.is_pre_ping and context.is_disconnect:
            return  # the pool sees that its connection is dead and makes a new one
        error = context.original_exception
        if (ours := translate(error, database, writing=writing)) is not None:
            raise ours from error

    event.listen(engine, "handle_error", raise_ours)


# ---- SQLite --------------------------------------------------------------------------------------


def _sqlite(url: URL, wait_seconds: float) -> Engines:
    database = str(url.database)
    # The driver must never begin or commit by itself.
    options: dict[str, Any] = {
        "connect_args": {"isolation_level": None, "timeout": wait_seconds},
    }
    writing, reading = _pools(wait_seconds)
    writers = create_engine(url, **options, **writing)
    readers = create_engine(url, **options, **reading)
    event.listen(writers, "connect", _prepare_sqlite_writer)
    event.listen(readers, "connect", _prepare_sqlite_reader)
    event.listen(writers, "begin", _begin_sqlite_writer)
    event.listen(readers, "begin", _begin_sqlite_reader)
    _translate_errors(writers, database, writing=True)
    _translate_errors(readers, database, writing=False)
    return Engines(database, writers, readers)


def _prepare_sqlite_writer(connection: sqlite3.Connection, _: object) -> None:
    _enter_wal(connection)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_LIMIT_BYTES}")
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")


def _enter_wal(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log; the file remembers it."""
    if connection.execute("PRAGMA journal_mode").fetchone() == ("wal",):
        return
    # The switch itself does not wait for others; an empty transaction does.
    connection.execute("BEGIN EXCLUSIVE")
    connection.execute("ROLLBACK")
    connection.execute("PRAGMA journal_mode = WAL")


def _prepare_sqlite_reader(connection: sqlite3.Connection, _: object) -> None:
    connection.execute("PRAGMA query_only = ON")


def _begin_sqlite_writer(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_sqlite_reader(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


# ---- PostgreSQL ----------------------------------------------------------------------------------


# PostgreSQL has no NUL in text, which JSON from a device may contain.
_NUL, _SUBSTITUTE = "\0", "\ufffd"


class _Text(StrDumperUnknown):
    def dump(self, obj: str) -> Buffer | None:
        return super().dump(obj.replace(_NUL, _SUBSTITUTE))


class _BinaryText(StrBinaryDumper):
    def dump(self, obj: str) -> Buffer | None:
        return super().dump(obj.replace(_NUL, _SUBSTITUTE))


def _postgres(url: URL, wait_seconds: float) -> Engines:
    database = url.set(query={}).render_as_string(hide_password=True)
    options: dict[str, Any] = {
        "pool_pre_ping": True,  # a server that was restarted costs nobody an error
        "connect_args": {
            "connect_timeout": max(2, round(wait_seconds)),
            "tcp_user_timeout": _SILENT_SECONDS * 1000,
            "keepalives_idle": _SILENT_SECONDS // 3,  # while an answer is awaited
            "keepalives_interval": _SILENT_SECONDS // 6,
            "client_encoding": "utf8",
            "application_name": "rimward-hub",
        },
    }
    writing, reading = _pools(wait_seconds)
    writers = create_engine(url, **options, **writing)
    readers = create_engine(url, **options, **reading)
    lock_millis = max(1, round(wait_seconds * 1000))

    def prepare(connection: psycopg.Connection[Any]) -> None:
        connection.adapters.register_dumper(str, _BinaryText)
        connection.adapters.register_dumper(str, _Text)  # the last one is the usual one
        connection.execute("SET synchronous_commit TO on")
        connection.execute(f"SET lock_timeout TO {lock_millis}")
        connection.commit()

    def prepare_writer(connection: psycopg.Connection[Any], _: object) -> None:
        prepare(connection)

    def prepare_reader(connection: psycopg.Connection[Any], _: object) -> None:
        prepare(connection)
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True

    event.listen(writers, "connect", prepare_writer)
    event.listen(readers, "connect", prepare_reader)
    event.listen(writers, "begin", _begin_postgres_writer)
    _translate_errors(writers, database, writing=True)
    _translate_errors(readers, database, writing=False)
    return Engines(database, writers, readers)


def _begin_postgres_writer(connection: Connection) -> None:
    # Read committed: every statement after this one sees what the writers before have committed.
    connection.exec_driver_sql(_LOCK_POSTGRES)
