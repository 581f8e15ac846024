"""A transport in memory, with the hub's end as methods: what it loses is as lost as on a wire."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from agent.core.ports import Connected, Disconnected, Received, TransportEvent
from protocol import codec
from protocol.messages import Status
from protocol.topics import DownKind, UpKind


class FakeTransport:
    """See agent.core.ports.Transport. Messages take effect one turn of the loop later.

    Args:
        on_message: The hub: hears everything the device says, presence included.
        online: Whether the hub can be reached from the beginning.
        max_in_flight: Messages the hub has not yet taken.
    """

    def __init__(
        self,
        on_message: Callable[[UpKind, bytes], None],
        *,
        online: bool = True,
        max_in_flight: int = 20,
    ) -> None:
        self._on_message = on_message
        self._online = online
        self._max_in_flight = max_in_flight
        self._connected = False
        self._up: deque[tuple[UpKind, bytes]] = deque()
        self._events: deque[TransportEvent] = deque()
        self._changed = asyncio.Event()

    # ---- the device's end ------------------------------------------------------------------------

    async def run(self, on_event: Callable[[TransportEvent], None]) -> None:
        """Stay connected until cancelled. Events come in order."""
        try:
            while True:
                self._connect_if_possible()
                while self._events:
                    on_event(self._events.popleft())
                while self._up:
                    self._on_message(*self._up.popleft())
                await self._changed.wait()
                self._changed.clear()
        finally:
            self._lose("closed by this side")
            self._events.clear()

    def publish(self, kind: UpKind, body: bytes) -> bool:
        """Hand a message to the transport; False when it is not connected or congested."""
        if not self._connected or len(self._up) >= self._max_in_flight:
            return False
        self._up.append((kind, body))
        self._changed.set()
        return True

    # ---- the hub's end, and the wire -------------------------------------------------------------

    def send(self, kind: DownKind, body: bytes) -> bool:
        """Say something to the device; False when it is not connected."""
        if self._connected:
            self._events.append(Received(kind, body))
            self._changed.set()
        return self._connected

    def cut(self) -> None:
        """Take the hub away; what was under way to it is lost."""
        self._online = False
        self._lose("the connection was lost")

    def heal(self) -> None:
        """Make the hub reachable."""
        self._online = True
        self._changed.set()

    def _connect_if_possible(self) -> None:
        if self._online and not self._connected:
            self._connected = True
            self._events.append(Connected())
            self._on_message(UpKind.STATUS, codec.encode(Status(connected=True)))

    def _lose(self, reason: str) -> None:
        if self._connected:
            self._connected = False
            self._up.clear()
            self._events.append(Disconnected(reason))
            self._on_message(UpKind.STATUS, codec.encode(Status(connected=False)))
            self._changed.set()
