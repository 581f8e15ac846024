"""Messages taken from one peer and not finished: bounded, and acknowledged in order of arrival.

Decides when a message counts as taken. Must not know connections, topics or packets.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from protocol.errors import FleetError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


@dataclass(frozen=True, slots=True)
class Settled:
    """How a message ended: processed (no error), refused for good, or not processed."""

    packet_id: int
    error: BaseException | None

    @property
    def is_lost(self) -> bool:
        """Whether the sender has to keep the message and send it again."""
        error = self.error
        if isinstance(error, FleetError):
            return error.retryable
        return error is not None


@dataclass(slots=True)
class _Entry:
    packet_id: int
    size: int
    task: asyncio.Task[None]


class Inbox:
    """Runs work per message concurrently; reports results strictly in order of arrival.

    After the first lost message nothing more is reported: its sender must see no acknowledgement
    for anything behind it before it has sent the lost message again.
    """

    __slots__ = (
        "_broken",
        "_bytes",
        "_entries",
        "_max_bytes",
        "_max_count",
        "_on_settled",
        "_spawn",
    )

    def __init__(
        self,
        max_count: int,
        max_bytes: int,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        on_settled: Callable[[Settled], None],
    ) -> None:
        """Run at most so many messages and bytes, started with `spawn`."""
        self._spawn = spawn
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._on_settled = on_settled
        self._entries: deque[_Entry] = deque()
        self._bytes = 0
        self._broken = False

    @property
    def is_full(self) -> bool:
        """Whether no further message may be taken now."""
        return len(self._entries) >= self._max_count or self._bytes >= self._max_bytes

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """The work that has not been reported yet."""
        return [entry.task for entry in self._entries]

    def take(self, packet_id: int, size: int, work: Coroutine[Any, Any, None]) -> None:
        """Start `work` for a message of `size` bytes; call in order of arrival."""
        task = self._spawn(work)
        self._entries.append(_Entry(packet_id, size, task))
        self._bytes += size
        task.add_done_callback(self._settle)

    def _settle(self, _: asyncio.Task[None]) -> None:
        entries = self._entries
        while entries and entries[0].task.done():
            entry = entries.popleft()
            self._bytes -= entry.size
            settled = Settled(entry.packet_id, _error_of(entry.task))
            if not self._broken:
                self._broken = settled.is_lost
                self._on_settled(settled)


def _error_of(task: asyncio.Task[None]) -> BaseException | None:
    return asyncio.CancelledError() if task.cancelled() else task.exception()
