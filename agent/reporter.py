"""Tells the hub what is so, whenever it changed, until the hub says that it knows."""

from __future__ import annotations

from typing import Any

from agent.core.ports import Clock, Transport
from agent.memory import Memory
from protocol import codec
from protocol.messages import Reported, ReportedAck
from protocol.topics import UpKind

_RESEND_SECONDS = 10.0


class Reporter:
    """Level-triggered: holds the newest report and sends it until its revision is acknowledged."""

    def __init__(self, memory: Memory, transport: Transport, clock: Clock) -> None:
        self._memory = memory
        self._transport = transport
        self._clock = clock
        self._newest: Reported | None = None
        self._acknowledged = 0
        self._resend_at = 0.0

    @property
    def newest(self) -> dict[str, Any]:
        """The newest report, empty before the first."""
        return self._newest.reported if self._newest else {}

    def connected(self) -> None:
        """A new connection: the report goes out again, the hub may be another or an older one."""
        self._acknowledged = 0
        self._resend_at = 0.0

    def acknowledged(self, body: bytes) -> None:
        """Note what the hub holds, or raise InvalidError (`message-invalid`)."""
        revision = codec.decode(body, ReportedAck).revision
        if revision > self._memory.revision:
            # The hub has seen reports this store does not remember: count on from there.
            self._memory.skip_to_revision(revision)
            self._newest = None
        self._acknowledged = revision

    def report(self, reported: dict[str, Any]) -> bool:
        """Send `reported` if it is news, or again if it was not acknowledged in time.

        Returns whether it is news.
        """
        is_news = self._newest is None or self._newest.reported != reported
        if self._newest is None or is_news:
            self._newest = Reported(self._memory.next_revision(), reported)
            self._resend_at = 0.0
        is_due = self._clock.monotonic() >= self._resend_at
        if self._acknowledged < self._newest.revision and is_due:
            message = codec.encode(self._newest)
            if self._transport.publish(UpKind.REPORTED, message):
                self._resend_at = self._clock.monotonic() + _RESEND_SECONDS
        return is_news
