"""Which of our errors a failure of a database driver is."""

from __future__ import annotations

import sqlite3

import psycopg
import pytest
from psycopg import errors

from hub.adapters.sql.failures import translate
from protocol.errors import Code


def sqlite_error(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("as the driver says it")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (sqlite3.SQLITE_BUSY, Code.DATABASE_UNAVAILABLE),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, Code.DATABASE_UNAVAILABLE),
        (sqlite3.SQLITE_CANTOPEN, Code.DATABASE_UNAVAILABLE),
        (sqlite3.SQLITE_READONLY_DIRECTORY, Code.DATABASE_UNAVAILABLE),
        (sqlite3.SQLITE_IOERR_FSYNC, Code.DATABASE_UNAVAILABLE),
        (sqlite3.SQLITE_FULL, Code.DISK_FULL),
        (sqlite3.SQLITE_CORRUPT_INDEX, Code.DATABASE_CORRUPT),
        (sqlite3.SQLITE_NOTADB, Code.DATABASE_CORRUPT),
        (sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY, Code.STATE_CONFLICT),
    ],
)
def test_a_result_code_of_sqlite_has_a_meaning(code: int, expected: Code) -> None:
    found = translate(sqlite_error(code), "hub.db")

    assert found is not None
    assert found.code is expected
    assert "'hub.db'" in str(found)
    assert found.hint


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (psycopg.OperationalError("connection refused"), Code.DATABASE_UNAVAILABLE),
        (psycopg.InterfaceError("the connection is closed"), Code.DATABASE_UNAVAILABLE),
        (errors.AdminShutdown(), Code.DATABASE_UNAVAILABLE),
        (errors.CannotConnectNow(), Code.DATABASE_UNAVAILABLE),
        (errors.ConnectionFailure(), Code.DATABASE_UNAVAILABLE),
        (errors.TooManyConnections(), Code.DATABASE_UNAVAILABLE),
        (errors.LockNotAvailable(), Code.DATABASE_UNAVAILABLE),
        (errors.DeadlockDetected(), Code.DATABASE_UNAVAILABLE),
        (errors.IdleInTransactionSessionTimeout(), Code.DATABASE_UNAVAILABLE),
        (errors.InvalidPassword(), Code.DATABASE_UNAVAILABLE),
        (errors.InsufficientPrivilege(), Code.DATABASE_UNAVAILABLE),
        (errors.ReadOnlySqlTransaction(), Code.DATABASE_UNAVAILABLE),
        (errors.IoError(), Code.DATABASE_UNAVAILABLE),
        (errors.DiskFull(), Code.DISK_FULL),
        (errors.DataCorrupted(), Code.DATABASE_CORRUPT),
        (errors.IndexCorrupted(), Code.DATABASE_CORRUPT),
        (errors.UniqueViolation(), Code.STATE_CONFLICT),
        (errors.ForeignKeyViolation(), Code.STATE_CONFLICT),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_state_of_postgresql_has_a_meaning(error: psycopg.Error, expected: Code) -> None:
    found = translate(error, "hub")

    assert found is not None
    assert found.code is expected
    assert "'hub'" in str(found)
    assert found.hint


@pytest.mark.parametrize(
    "error",
    [
        None,
        ValueError("ours"),
        sqlite3.ProgrammingError("no code"),
        sqlite_error(sqlite3.SQLITE_ERROR),
        errors.UndefinedTable(),
        psycopg.ProgrammingError("wrong number of parameters"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_our_own_mistakes_stay_bugs(error: BaseException | None) -> None:
    assert translate(error, "hub") is None


@pytest.mark.parametrize(
    "error", [sqlite_error(sqlite3.SQLITE_READONLY), errors.ReadOnlySqlTransaction()]
)
def test_writing_in_a_reading_unit_is_our_own_mistake(error: BaseException) -> None:
    assert translate(error, "hub", writing=False) is None
