"""Models and images in SQL: both count versions per name, and no version comes back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select, Table, select
from sqlalchemy.dialects import postgresql, sqlite

from hub.adapters.sql import tables
from hub.adapters.sql.records import Records
from hub.core.image import Image
from hub.core.model import Model


class SqlModels:
    """The `Models` port."""

    def __init__(self, connection: Connection) -> None:
        self._records = Records(connection, tables.models, Model)
        self._versions = _Versions(connection, "model")

    def get(self, name: str, version: int | None) -> Model | None:
        """Return one version, the newest when `version` is None, or None."""
        return self._records.first(_pick(self._records.select(), tables.models, name, version))

    def next_version(self, name: str) -> int:
        """Return the version the next registration of `name` gets; never one used before."""
        return self._versions.newest(name) + 1

    def add(self, model: Model) -> None:
        """Insert a new version."""
        self._records.add(model)
        self._versions.use(model.name, model.version)

    def list(self, name: str | None = None) -> Sequence[Model]:
        """Return all versions, ordered by name and version."""
        return self._records.all(_in_order(self._records.select(), tables.models, name))


class SqlImages:
    """The `Images` port."""

    def __init__(self, connection: Connection) -> None:
        self._records = Records(connection, tables.images, Image)
        self._versions = _Versions(connection, "image")

    def get(self, name: str, version: int | None) -> Image | None:
        """Return one version, the newest when `version` is None, or None."""
        return self._records.first(_pick(self._records.select(), tables.images, name, version))

    def next_version(self, name: str) -> int:
        """Return the version the next image of `name` gets; never one used before."""
        return self._versions.newest(name) + 1

    def put(self, image: Image) -> None:
        """Insert or replace."""
        self._records.put(image)
        self._versions.use(image.name, image.version)

    def list(self, name: str | None = None) -> Sequence[Image]:
        """Return all versions, ordered by name and version."""
        return self._records.all(_in_order(self._records.select(), tables.images, name))


class _Versions:
    """The newest version of each name of one kind, kept beyond the life of what had it."""

    def __init__(self, connection: Connection, kind: str) -> None:
        self._connection = connection
        self._kind = kind

    def newest(self, name: str) -> int:
        counters = tables.version_counters.c
        mine = (counters.kind == self._kind) & (counters.name == name)
        return self._connection.execute(select(counters.newest).where(mine)).scalar() or 0

    def use(self, name: str, version: int) -> None:
        table = tables.version_counters
        is_postgres = self._connection.dialect.name == "postgresql"
        made = postgresql.insert(table) if is_postgres else sqlite.insert(table)
        risen = made.on_conflict_do_update(
            index_elements=["kind", "name"],
            set_={"newest": made.excluded.newest},
            where=made.excluded.newest > table.c.newest,
        )
        self._connection.execute(risen, {"kind": self._kind, "name": name, "newest": version})


def _pick(query: Select[Any], table: Table, name: str, version: int | None) -> Select[Any]:
    wanted = query.where(table.c.name == name)
    if version is not None:
        wanted = wanted.where(table.c.version == version)
    return wanted.order_by(table.c.version.desc())


def _in_order(query: Select[Any], table: Table, name: str | None) -> Select[Any]:
    wanted = query if name is None else query.where(table.c.name == name)
    return wanted.order_by(table.c.name, table.c.version)
