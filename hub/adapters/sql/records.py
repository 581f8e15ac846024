"""Values of one dataclass in one table whose columns are named like its fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Connection, Insert, Select, Table, select
from sqlalchemy.dialects import postgresql, sqlite

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    T = TypeVar("T", bound=DataclassInstance)
else:
    T = TypeVar("T")


class Records(Generic[T]):
    """Reads and writes values of `kind`; columns without a field are given as `more`."""

    def __init__(self, connection: Connection, table: Table, kind: type[T]) -> None:
        self._connection = connection
        self._table = table
        self._kind = kind
        self._names = _names(kind)

    def select(self) -> Select[Any]:
        """Return a query for all values, to be narrowed and ordered."""
        return select(*(self._table.c[name] for name in self._names))

    def first(self, query: Select[Any]) -> T | None:
        """Return the first value of a query, or None."""
        row = self._connection.execute(query.limit(1)).first()
        return None if row is None else self._kind(**row._mapping)  # noqa: SLF001 - public in spite of its name

    def get(self, *where: ColumnElement[bool]) -> T | None:
        """Return the value that matches, or None."""
        return self.first(self.select().where(*where))

    def all(self, query: Select[Any]) -> Sequence[T]:
        """Return the values of a query."""
        return [self._kind(**row) for row in self._connection.execute(query).mappings()]

    def put(self, value: T, **more: Any) -> None:
        """Insert, or replace the row with the same key."""
        self._connection.execute(
            upsert(self._table, self._connection.dialect.name), self._row(value, more)
        )

    def add(self, value: T, **more: Any) -> None:
        """Insert; a row with the same key is refused."""
        self._connection.execute(self._table.insert(), self._row(value, more))

    def add_once(self, value: T, **more: Any) -> None:
        """Insert, or leave the row with the same key as it is."""
        self._connection.execute(
            insert_once(self._table, self._connection.dialect.name), self._row(value, more)
        )

    def _row(self, value: T, more: dict[str, Any]) -> dict[str, Any]:
        return {name: getattr(value, name) for name in self._names} | more


@cache
def upsert(table: Table, dialect: str) -> Insert:
    """Return the statement that inserts a row or replaces the one with the same primary key."""
    keys = [column.name for column in table.primary_key]
    others = [column.name for column in table.columns if column.name not in keys]
    # Both dialects share the clause; only their constructs are two classes.
    if dialect == "postgresql":
        there = postgresql.insert(table)
        return there.on_conflict_do_update(
            index_elements=keys, set_={name: there.excluded[name] for name in others}
        )
    here = sqlite.insert(table)
    return here.on_conflict_do_update(
        index_elements=keys, set_={name: here.excluded[name] for name in others}
    )


@cache
def insert_once(table: Table, dialect: str) -> Insert:
    """Return the statement that inserts a row unless one contradicts it."""
    made = postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
    return made.on_conflict_do_nothing()


@cache
def _names(kind: type[DataclassInstance]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))
