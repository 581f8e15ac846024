"""The `Store` and `UnitOfWork` ports on SQLite or PostgreSQL; one URL decides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from hub.adapters.sql import tables
from hub.adapters.sql.columns import to_micros
from hub.adapters.sql.deployments import SqlDeployments
from hub.adapters.sql.devices import SqlClaims, SqlDevices, SqlTokens
from hub.adapters.sql.engines import Engines, make_engines
from hub.adapters.sql.failures import damaged, locked
from hub.adapters.sql.oci import SqlOciIndex
from hub.adapters.sql.records import upsert
from hub.adapters.sql.telemetry import SqlTelemetry
from hub.adapters.sql.versions import SqlImages, SqlModels
from hub.core.ports import (
    Claims,
    Clock,
    Deployments,
    Devices,
    Images,
    Models,
    OciIndex,
    TelemetryStore,
    Tokens,
    UnitOfWork,
)
from hub.migrations import bundled, migrate
from protocol.errors import Code, InvalidError

WAIT_SECONDS = 10.0


def open_store(url: str, clock: Clock, *, wait_seconds: float = WAIT_SECONDS) -> SqlStore:
    """Open a database, check it, and bring it to today's schema.

    Args:
        url: `sqlite:///path` or `postgresql+psycopg://user:password@host:port/database`.
        clock: For the records of migrations.
        wait_seconds: How long a transaction waits for another writer or a free connection.

    Raises:
        InvalidError: `settings-invalid`, for a URL of another kind or a database that is not UTF-8.
        UnavailableError: `database-unavailable`, `database-corrupt`, `disk-full`.
        ConflictError: `database-newer`; `state-conflict` for a database of another program or
            one made by a program whose migrations differ.
    """
    engines = make_engines(url, wait_seconds=wait_seconds)
    try:
        _check(engines)
        applied = migrate(
            engines.writers,
            bundled(),
            now_micros=lambda: to_micros(clock.now()),
            database=engines.database,
        )
    except BaseException:
        engines.close()
        raise
    return SqlStore(engines, applied)


def _check(engines: Engines) -> None:
    # The writer comes first: it creates a file that is not there yet.
    with _connect(engines.writers, engines.database) as connection:
        if connection.dialect.name == "sqlite":
            finding = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
            if finding != "ok":
                raise damaged(engines.database, str(finding))
            return
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
        if encoding != "UTF8":
            raise InvalidError(
                f"database {engines.database!r} has the encoding {encoding!r}",
                code=Code.SETTINGS_INVALID,
                hint="create it with `createdb --encoding=UTF8 --template=template0`",
            )


@contextmanager
def _connect(engine: Engine, database: str) -> Iterator[Connection]:
    """Yield a connection with a transaction begun; leaving rolls back what was not committed."""
    try:
        connection = engine.connect()
    except PoolTimeoutError as error:
        raise locked(database) from error
    with connection:
        connection.begin()
        yield connection


class SqlStore:
    """The `Store` port. Safe to use from several threads.

    Attributes:
        applied: Labels of the migrations this opening applied.
    """

    def __init__(self, engines: Engines, applied: tuple[str, ...]) -> None:
        self._engines = engines
        self.applied = applied

    @contextmanager
    def begin(self, *, write: bool = True) -> Iterator[UnitOfWork]:
        """Open a transaction; leaving the block without `commit` rolls back.

        A writing unit has the database to itself as far as writing goes: a second one waits, also
        one in another process. Units must therefore be short and never nested in each other. A
        reading unit sees one unchanging state from its first read on and cannot write.

        Raises:
            UnavailableError: `database-unavailable`.
        """
        engine = self._engines.writers if write else self._engines.readers
        with _connect(engine, self._engines.database) as connection:
            yield SqlUnitOfWork(connection)

    def close(self) -> None:
        """Release every connection."""
        self._engines.close()


class SqlUnitOfWork:
    """The `UnitOfWork` port over one connection.

    When one of its methods raises, the unit is over: leave the block, begin another one.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.devices: Devices = SqlDevices(connection)
        self.claims: Claims = SqlClaims(connection)
        self.tokens: Tokens = SqlTokens(connection)
        self.models: Models = SqlModels(connection)
        self.images: Images = SqlImages(connection)
        self.deployments: Deployments = SqlDeployments(connection)
        self.telemetry: TelemetryStore = SqlTelemetry(connection)
        self.oci: OciIndex = SqlOciIndex(connection)

    def commit(self) -> None:
        """Make everything since the beginning, or the last commit, durable."""
        self._connection.commit()

    def get_setting(self, key: str) -> str | None:
        """Return a value the hub keeps about itself, or None."""
        columns = tables.settings.c
        value = self._connection.execute(select(columns.value).where(columns.key == key)).scalar()
        return None if value is None else str(value)

    def put_setting(self, key: str, value: str) -> None:
        """Keep a value the hub keeps about itself."""
        statement = upsert(tables.settings, self._connection.dialect.name)
        self._connection.execute(statement, {"key": key, "value": value})
