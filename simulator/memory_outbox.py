"""Outbox and state store in memory: for simulated devices, and as the model of the real ones."""

from __future__ import annotations

from collections.abc import Sequence

from agent.core.ports import OutboxCounts, OutboxRecord
from protocol.errors import Code, ConflictError


class MemoryOutbox:
    """See agent.core.ports.Outbox; forgets everything with the object."""

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self._waiting: dict[int, OutboxRecord] = {}
        self._consumed: set[str] = set()
        self._last = 0
        self._acknowledged = 0
        self._refused = 0

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
        """Store one message and return its seq."""
        if consumed is not None:
            if consumed in self._consumed:
                raise ConflictError(
                    f"input {consumed!r} was answered before",
                    code=Code.STATE_CONFLICT,
                    hint="ask `is_consumed` first; nothing was stored",
                )
            self._consumed.add(consumed)
        self._last += 1
        self._waiting[self._last] = OutboxRecord(
            self._last, module, output, at_ms, body, dict(properties)
        )
        return self._last

    def is_consumed(self, name: str) -> bool:
        """Tell whether an input was answered already."""
        return name in self._consumed

    def forget_consumed(self, names: Sequence[str]) -> None:
        """Drop the notes about inputs that are gone."""
        self._consumed.difference_update(names)

    def waiting(self, *, after: int, limit: int) -> Sequence[OutboxRecord]:
        """Return unacknowledged records with seq beyond `after`, in order."""
        found: list[OutboxRecord] = []
        for seq, record in self._waiting.items():  # in order: seqs only rise
            if len(found) >= limit:
                break
            if seq > after:
                found.append(record)
        return found

    def acknowledge(self, ranges: Sequence[tuple[int, int]], refused: Sequence[int]) -> int:
        """Remove acknowledged (inclusive ranges) and refused records; return how many went."""
        accepted = sum(self._remove(first, last) for first, last in ranges)
        dropped = sum(self._remove(seq, seq) for seq in refused)
        self._acknowledged += accepted
        self._refused += dropped
        return accepted + dropped

    def counts(self) -> OutboxCounts:
        """Return the counters."""
        return OutboxCounts(self._last, self._acknowledged, self._refused, len(self._waiting))

    def _remove(self, first: int, last: int) -> int:
        seqs = range(max(first, 1), min(last, self._last) + 1)
        return sum(self._waiting.pop(seq, None) is not None for seq in seqs)


class MemoryState:
    """See agent.core.ports.StateStore; forgets everything with the object."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        """Return a value, or None."""
        return self._values.get(key)

    def put(self, values: dict[str, bytes | None]) -> None:
        """Write values together; None removes a key."""
        for key, value in values.items():
            if value is None:
                self._values.pop(key, None)
            else:
                self._values[key] = value
