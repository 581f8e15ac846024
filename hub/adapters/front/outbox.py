"""QoS 1 messages on their way to one peer: a window of unacknowledged ones, a bounded queue behind.

Must not know connections or topics. Nothing is sent twice: when the connection breaks, everything
here is gone, and the hub sends again what still matters.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from protocol.mqtt import Publish

if TYPE_CHECKING:
    from collections.abc import Callable

_LAST_PACKET_ID = 0xFFFF


class Outbox:
    """Numbers messages and sends as many as the peer may have unacknowledged."""

    __slots__ = (
        "_last_id",
        "_max_waiting_bytes",
        "_transmit",
        "_unacknowledged",
        "_waiting",
        "_waiting_bytes",
        "_window",
    )

    def __init__(
        self, window: int, max_waiting_bytes: int, transmit: Callable[[Publish], None]
    ) -> None:
        self._window = window
        self._max_waiting_bytes = max_waiting_bytes
        self._transmit = transmit
        self._unacknowledged: set[int] = set()
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._waiting_bytes = 0
        self._last_id = 0

    def put(self, topic: str, payload: bytes) -> bool:
        """Send now or after an acknowledgement; False when too much waits already."""
        if len(self._unacknowledged) < self._window:
            self._send(topic, payload)
            return True
        size = len(payload) + len(topic)
        if self._waiting_bytes + size > self._max_waiting_bytes:
            return False
        self._waiting.append((topic, payload))
        self._waiting_bytes += size
        return True

    def acknowledge(self, packet_id: int) -> None:
        """Take an acknowledgement; one nobody waits for means nothing."""
        self._unacknowledged.discard(packet_id)
        while self._waiting and len(self._unacknowledged) < self._window:
            topic, payload = self._waiting.popleft()
            self._waiting_bytes -= len(payload) + len(topic)
            self._send(topic, payload)

    def _send(self, topic: str, payload: bytes) -> None:
        packet_id = self._last_id % _LAST_PACKET_ID + 1
        while packet_id in self._unacknowledged:
            packet_id = packet_id % _LAST_PACKET_ID + 1
        self._last_id = packet_id
        self._unacknowledged.add(packet_id)
        self._transmit(Publish(topic, payload, 1, packet_id))
