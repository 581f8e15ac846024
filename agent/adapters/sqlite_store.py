"""Outbox and small state of the agent in one SQLite file: what `add` returned survives anything.

Decides how things are kept; which messages to keep, drop or send first is the core's matter. All
methods belong to one thread and are short: one commit each, synced.
"""

from __future__ import annotations

import secrets
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import sqlite_utils

from agent.adapters.sqlite_file import (
    HighWater,
    disk_full,
    open_file,
    translated,
    unavailable,
)
from agent.core.ports import Clock, OutboxCounts, OutboxRecord
from protocol.errors import Code, ConflictError

_ROOM_EVERY = 64  # messages between two looks at the size of the file
_INSERT = (
    "INSERT INTO outbox (module, output, at_ms, body, properties, checksum)"
    " VALUES (?, ?, ?, ?, ?, ?)"
)
_WAITING = (
    "SELECT seq, module, output, at_ms, body, properties, checksum FROM outbox"
    " WHERE seq > ? ORDER BY seq LIMIT ?"
)


class NewRecord(NamedTuple):
    """A message to store, see Outbox.add."""

    module: str
    output: str
    at_ms: int
    body: bytes
    properties: dict[str, str]
    consumed: str | None = None


class SqliteStore:
    """Keeps messages and values in one file, see agent.core.ports.Outbox and StateStore.

    Args:
        path: The file, usually `<home>/agent.db`.
        clock: Names a damaged file that is set aside.
        new_epoch: Makes the identity of a new store, 16 hexadecimal digits.
        limit_bytes: Messages are refused with `disk-full` once the file has this size.

    Raises:
        FleetError: `database-newer`, `database-unavailable`, `disk-full`.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        new_epoch: Callable[[], str] = lambda: secrets.token_hex(8),
        limit_bytes: int = 1024 * 1024 * 1024,
    ) -> None:
        self._path = path
        self._clock = clock
        self._new_epoch = new_epoch
        self._limit_bytes = limit_bytes
        self._set_aside: Path | None = None
        self._lost = 0
        self._closed = True
        self._usable = False
        self._open()

    # ---- life ------------------------------------------------------------------------------------

    @property
    def epoch(self) -> str:
        """Identity of this store's life."""
        return self._epoch

    @property
    def recovered_from_damage(self) -> bool:
        """Whether damage was found since this object was made: a new file, or records lost."""
        return self._set_aside is not None or self._lost > 0

    @property
    def set_aside(self) -> Path | None:
        """Where the damaged file is that was replaced, if one was."""
        return self._set_aside

    @property
    def lost(self) -> int:
        """Messages found missing or damaged since this object was made; counted as refused."""
        return self._lost

    def reopen(self) -> None:
        """Open the file anew and verify it: the way on after `database-unavailable`.

        Raises:
            FleetError: As when it is made.
        """
        self.close()
        self._open()

    def close(self) -> None:
        """Release the file; every later call but `reopen` fails."""
        if not self._closed:
            self._closed, self._usable = True, False
            self._mark.close()
            self._connection.close()

    def _open(self) -> None:
        opened = open_file(self._path, self._clock.now(), self._new_epoch())
        self._connection = opened.connection
        self._database = sqlite_utils.Database(opened.connection, execute_plugins=False)
        self._epoch = opened.epoch
        self._set_aside = opened.set_aside or self._set_aside
        self._mark = HighWater(self._path, self._epoch)
        self._closed, self._usable = False, True
        self._until_room_check = 0
        with self._translating():
            self._count()

    def _count(self) -> None:
        row = next(
            self._database.query(
                "SELECT acknowledged, refused, (SELECT count(*) FROM outbox) AS waiting,"
                " coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'outbox'), 0) AS last"
                " FROM life"
            )
        )
        self._acknowledged, self._refused = int(row["acknowledged"]), int(row["refused"])
        last = max(int(row["last"]), self._mark.read())
        missing = last - self._acknowledged - self._refused - int(row["waiting"])
        self._last = last
        if missing > 0:
            self._give_up(missing)

    def _give_up(self, missing: int) -> None:
        """Record that numbers are gone, and never give them out again."""
        with self._transaction():
            self._connection.execute("DELETE FROM sqlite_sequence WHERE name = 'outbox'")
            self._connection.execute(
                "INSERT INTO sqlite_sequence (name, seq) VALUES ('outbox', ?)", (self._last,)
            )
            self._connection.execute("UPDATE life SET refused = refused + ?", (missing,))
        self._refused += missing
        self._lost += missing

    # ---- Outbox ----------------------------------------------------------------------------------

    def add(
        self,
        module: str,
        output: str,
        at_ms: int,
        body: bytes,
        properties: dict[str, str],
        *,
        consumed: str | None = None,
    ) -> int:
        """Store one message durably and return its seq.

        Raises:
            FleetError: `disk-full`; `state-conflict` when `consumed` was answered before;
                `database-unavailable`, and then the message is not stored for certain.
        """
        record = NewRecord(module, output, at_ms, body, properties, consumed)
        with self._translating():
            self._check_room(1)
            if consumed is None:
                seq = self._insert(record)  # a statement alone is its own transaction
            else:
                with self._transaction():
                    seq = self._insert(record)
        return self._stored(seq)

    def add_many(self, records: Sequence[NewRecord]) -> range:
        """Store messages in one transaction, all or none, and return their seqs in order.

        Raises:
            FleetError: As `add`.
        """
        if not records:
            return range(self._last + 1, self._last + 1)
        with self._translating():
            self._check_room(len(records))
            with self._transaction():
                seqs = [self._insert(record) for record in records]
        self._stored(seqs[-1])
        return range(seqs[0], seqs[-1] + 1)

    def is_consumed(self, name: str) -> bool:
        """Tell whether an input was answered already."""
        with self._translating():
            found = self._connection.execute("SELECT 1 FROM consumed WHERE name = ?", (name,))
            return found.fetchone() is not None

    def forget_consumed(self, names: Sequence[str]) -> None:
        """Drop the notes about inputs that are gone."""
        if not names:
            return
        with self._translating(), self._transaction():
            self._connection.executemany(
                "DELETE FROM consumed WHERE name = ?", [(name,) for name in names]
            )

    def waiting(self, *, after: int, limit: int) -> Sequence[OutboxRecord]:
        """Return unacknowledged records with seq beyond `after`, in order.

        Records damaged on the disk are dropped and counted as refused.
        """
        while True:
            with self._translating():
                rows = self._connection.execute(_WAITING, (after, limit)).fetchall()
            loaded = [(row[0], _load(row)) for row in rows]
            damaged = [seq for seq, record in loaded if record is None]
            records = [record for _, record in loaded if record is not None]
            if damaged:
                self._lost += self.acknowledge((), damaged)
            if records or not damaged:
                return records

    def acknowledge(self, ranges: Sequence[tuple[int, int]], refused: Sequence[int]) -> int:
        """Remove acknowledged (inclusive ranges) and refused records; return how many went."""
        with self._translating(), self._transaction():
            accepted = sum(self._delete(first, last) for first, last in ranges)
            dropped = sum(self._delete(seq, seq) for seq in refused)
            if accepted or dropped:
                self._connection.execute(
                    "UPDATE life SET acknowledged = acknowledged + ?, refused = refused + ?",
                    (accepted, dropped),
                )
        self._acknowledged += accepted
        self._refused += dropped
        return accepted + dropped

    def counts(self) -> OutboxCounts:
        """Return the counters of this epoch."""
        return OutboxCounts(
            stored=self._last,
            acknowledged=self._acknowledged,
            refused=self._refused,
            waiting=self._last - self._acknowledged - self._refused,
        )

    # ---- StateStore ------------------------------------------------------------------------------

    def get(self, key: str) -> bytes | None:
        """Return a value, or None when there is none or it is damaged."""
        with self._translating():
            sql = "SELECT value, checksum FROM state WHERE key = ?"
            row = next(iter(self._database.query(sql, [key])), None)
        if row is None or _checksum(key, row["value"]) != row["checksum"]:
            return None
        return bytes(row["value"])

    def put(self, values: dict[str, bytes | None]) -> None:
        """Write values in one transaction; None removes a key.

        Raises:
            FleetError: `disk-full`, `database-unavailable`.
        """
        gone = [(key,) for key, value in values.items() if value is None]
        kept = [
            (key, value, _checksum(key, value))
            for key, value in values.items()
            if value is not None
        ]
        with self._translating(), self._transaction():
            self._connection.executemany("DELETE FROM state WHERE key = ?", gone)
            self._connection.executemany("REPLACE INTO state VALUES (?, ?, ?)", kept)

    # ---- within ----------------------------------------------------------------------------------

    def _insert(self, record: NewRecord) -> int:
        module, output, at_ms, body, properties, consumed = record
        encoded = msgspec.json.encode(properties).decode() if properties else "{}"
        if consumed is not None:
            self._consume(consumed)
        checksum = _checksum(module, output, at_ms, body, encoded)
        values = (module, output, at_ms, body, encoded, checksum)
        return self._connection.execute(_INSERT, values).lastrowid or 0

    def _consume(self, name: str) -> None:
        sql = "INSERT INTO consumed VALUES (?) ON CONFLICT DO NOTHING"
        if not self._connection.execute(sql, (name,)).rowcount:
            raise ConflictError(
                f"input {name!r} was answered before",
                code=Code.STATE_CONFLICT,
                hint="ask `is_consumed` first; nothing was stored",
            )

    def _delete(self, first: int, last: int) -> int:
        # Numbers from the wire have any size; SQLite's have 64 bits.
        bounds = (max(first, 1), min(last, self._last))
        if bounds[0] > bounds[1]:
            return 0
        sql = "DELETE FROM outbox WHERE seq BETWEEN ? AND ?"
        return self._connection.execute(sql, bounds).rowcount

    def _stored(self, seq: int) -> int:
        self._last = seq
        self._mark.write(seq)
        return seq

    def _check_room(self, count: int) -> None:
        self._until_room_check -= count
        if self._until_room_check > 0:
            return
        pages = self._pragma("page_count") - self._pragma("freelist_count")
        if pages * self._pragma("page_size") >= self._limit_bytes:
            raise disk_full(self._path)
        self._until_room_check = _ROOM_EVERY

    def _pragma(self, name: str) -> int:
        return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    @contextmanager
    def _translating(self) -> Iterator[None]:
        if not self._usable:
            raise unavailable(self._path, "failed before and was not opened anew")
        try:
            yield
        except sqlite3.Error as error:
            # A full disk leaves the file as it was. After anything else nobody knows what a later
            # sync would make durable, so nothing is accepted until the file was verified.
            primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if primary not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY):
                self._usable = False
            raise translated(error, self._path) from error


def _checksum(*parts: str | int | bytes) -> int:
    value = 0
    for part in parts:
        value = zlib.crc32(part if isinstance(part, bytes) else str(part).encode(), value)
    return value


def _load(row: tuple[int, str, str, int, bytes, str, int]) -> OutboxRecord | None:
    seq, module, output, at_ms, body, properties, checksum = row
    if _checksum(module, output, at_ms, body, properties) != checksum:
        return None
    values = msgspec.json.decode(properties, type=dict[str, str]) if properties != "{}" else {}
    return OutboxRecord(seq, module, output, at_ms, body, values)
