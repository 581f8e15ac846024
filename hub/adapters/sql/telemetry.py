"""Measurements and quarantine in SQL; the one table that is written thousands of rows at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Select, delete, func, select

from hub.adapters.sql import tables
from hub.adapters.sql.columns import to_json, to_micros
from hub.adapters.sql.records import Records, insert_once
from hub.core.telemetry import Measurement, Quarantined, TelemetryFilter
from protocol.ids import DeviceId

QUARANTINE_PER_DEVICE = 100
_PAGE = 1000
_NAMES = "device, epoch, seq, module, output, at, received_at, properties, body"
_INSERT_SQLITE = (
    f"INSERT INTO telemetry ({_NAMES}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"  # noqa: S608 - constants
)
# One statement with an array per column, in binary form: many times faster than one per row.
_INSERT_POSTGRES = (
    f"INSERT INTO telemetry ({_NAMES}) SELECT {_NAMES} FROM unnest("  # noqa: S608 - constants
    "%b::text[], %b::text[], %b::bigint[], %b::text[], %b::text[], "
    "%b::bigint[], %b::bigint[], %b::text[], %b::bytea[]"
    f") WITH ORDINALITY AS arrived ({_NAMES}, place) ORDER BY place ON CONFLICT DO NOTHING"
)
_ROW = tables.telemetry.c
_KEPT = tables.quarantine.c


class SqlTelemetry:
    """The `TelemetryStore` port."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._measurements = Records(connection, tables.telemetry, Measurement)
        self._quarantined = Records(connection, tables.quarantine, Quarantined)

    def add(self, rows: Sequence[Measurement]) -> int:
        """Insert rows, skipping those already there; return how many were new."""
        if not rows:
            return 0
        values = [_values(row) for row in rows]
        if self._connection.dialect.name == "postgresql":
            columns = tuple(list(column) for column in zip(*values, strict=True))
            return self._connection.exec_driver_sql(_INSERT_POSTGRES, columns).rowcount
        return self._connection.exec_driver_sql(_INSERT_SQLITE, values).rowcount

    def quarantine(self, rows: Sequence[Quarantined]) -> None:
        """Keep what could not be accepted; repeated rows are ignored.

        A device keeps its newest QUARANTINE_PER_DEVICE messages: one that sends nothing but
        rubbish must not fill the disk.
        """
        if not rows:
            return
        statement = insert_once(tables.quarantine, self._connection.dialect.name)
        self._connection.execute(
            statement,
            [
                {
                    "device": row.device,
                    "received_at": row.received_at,
                    "reason": row.reason,
                    "digest": hashlib.sha256(row.body).hexdigest(),
                    "body": row.body,
                }
                for row in rows
            ],
        )
        for device in {row.device for row in rows}:
            self._trim(device)

    def quarantined(
        self, device: DeviceId | None = None, *, limit: int = QUARANTINE_PER_DEVICE
    ) -> Sequence[Quarantined]:
        """Return the newest quarantined messages, in order of arrival."""
        query = self._quarantined.select()
        if device is not None:
            query = query.where(_KEPT.device == device)
        return self._quarantined.all(query.order_by(_KEPT.id.desc()).limit(limit))[::-1]

    def tail(self, wanted: TelemetryFilter) -> Sequence[Measurement]:
        """Return matching rows in order of arrival (`Measurement.id`)."""
        query = self._matching(wanted).limit(wanted.limit)
        if wanted.newest:
            return self._measurements.all(query.order_by(_ROW.id.desc()))[::-1]
        return self._measurements.all(query.order_by(_ROW.id))

    def each(self, wanted: TelemetryFilter) -> Iterator[Measurement]:
        """Yield matching rows in order of arrival, a page in memory at a time."""
        after_id, left = self._start(wanted), wanted.limit
        while left is None or left > 0:
            size = _PAGE if left is None else min(_PAGE, left)
            page = self.tail(replace(wanted, after_id=after_id, limit=size, newest=False))
            yield from page
            if len(page) < size:
                return
            after_id = page[-1].id
            left = None if left is None else left - size

    def count(self) -> int:
        """Return the number of rows stored."""
        return self._connection.execute(
            select(func.count()).select_from(tables.telemetry)
        ).scalar_one()

    def counts_by_device(self) -> dict[DeviceId, int]:
        """Return the number of rows per device."""
        query = select(_ROW.device, func.count()).group_by(_ROW.device).order_by(_ROW.device)
        return {DeviceId(device): rows for device, rows in self._connection.execute(query)}

    def _matching(self, wanted: TelemetryFilter) -> Select[Any]:
        return _narrow(self._measurements.select(), wanted)

    def _start(self, wanted: TelemetryFilter) -> int:
        """Return the id behind which the wanted rows begin."""
        if not wanted.newest or wanted.limit is None:
            return wanted.after_id
        beyond = _narrow(select(_ROW.id), wanted).order_by(_ROW.id.desc())
        found = self._connection.execute(beyond.offset(wanted.limit).limit(1)).scalar()
        return wanted.after_id if found is None else int(found)

    def _trim(self, device: DeviceId) -> None:
        mine = select(_KEPT.id).where(_KEPT.device == device).order_by(_KEPT.id.desc())
        newest_too_many = mine.offset(QUARANTINE_PER_DEVICE).limit(1).scalar_subquery()
        self._connection.execute(
            delete(tables.quarantine).where(_KEPT.device == device, _KEPT.id <= newest_too_many)
        )


def _narrow(query: Select[Any], wanted: TelemetryFilter) -> Select[Any]:
    query = query.where(_ROW.id > wanted.after_id)
    if wanted.device is not None:
        query = query.where(_ROW.device == wanted.device)
    if wanted.module is not None:
        query = query.where(_ROW.module == wanted.module)
    return query


def _values(row: Measurement) -> tuple[Any, ...]:
    return (
        row.device,
        row.epoch,
        row.seq,
        row.module,
        row.output,
        to_micros(row.at),
        to_micros(row.received_at),
        to_json(row.properties),
        row.body,
    )
