"""Takes what waits in the outbox to the hub, and forgets only what the hub has committed."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence

import structlog

from agent.core.ports import MAX_BODY_BYTES, Clock, Outbox, OutboxRecord, Transport
from protocol import codec
from protocol.errors import FleetError
from protocol.messages import Ack, Telemetry, TelemetryRecord
from protocol.topics import UpKind

BATCH = 100
WINDOW = 1000
BATCH_BYTES = MAX_BODY_BYTES  # of bodies in one message; a single one may be as large
RESEND_SECONDS = 10.0
log = structlog.get_logger()


class Courier:
    """Sends records in order, a bounded number ahead of the acknowledgements.

    Whatever is not acknowledged in time is sent again; the hub recognises repetitions.
    """

    def __init__(
        self,
        outbox: Outbox,
        transport: Transport,
        clock: Clock,
        on_acknowledged: Callable[[str, Sequence[tuple[int, int]]], None] | None = None,
    ) -> None:
        self._on_acknowledged = on_acknowledged
        self._outbox = outbox
        self._transport = transport
        self._clock = clock
        self._sent = 0
        self._under_way: list[int] = []  # sent and not acknowledged, in order; at most WINDOW
        self._resend_at = 0.0
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Something was added to the outbox, or the hub can be reached again."""
        self._wake.set()

    def connected(self) -> None:
        """A new connection knows nothing of what was sent over the last one."""
        self._forget_sent()
        self._wake.set()

    def acknowledged(self, body: bytes) -> None:
        """Forget what an Ack names, or raise InvalidError (`message-invalid`)."""
        ack = codec.decode(body, Ack)
        if ack.epoch != self._outbox.epoch:
            return  # meant for a store this device no longer has
        if self._on_acknowledged:
            self._on_acknowledged(ack.epoch, ack.ranges)
        self._outbox.acknowledge(ack.ranges, ack.refused)
        if ack.refused:
            log.warning("telemetry.refused", records=ack.refused[:20])
        oldest = self._under_way[:1]
        for first, last in (*ack.ranges, *((seq, seq) for seq in ack.refused)):
            sent = self._under_way
            del sent[bisect_left(sent, first) : bisect_right(sent, last)]
        if self._under_way[:1] != oldest:
            # Only the oldest counts: news about younger ones must not hide that it was lost.
            self._resend_at = self._clock.monotonic() + RESEND_SECONDS
        self._wake.set()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            self._wake.clear()
            if not self._try_to_send():
                try:
                    async with asyncio.timeout(RESEND_SECONDS / 4):
                        await self._wake.wait()
                except TimeoutError:
                    pass
            else:
                await asyncio.sleep(0)  # noqa: TID251 - yields, does not wait

    def _try_to_send(self) -> bool:
        try:
            return self._send_more()
        except FleetError as error:  # the store cannot be read now: what waits there stays there
            log.warning("telemetry.waits", code=error.code, why=str(error))
            return False

    def _send_more(self) -> bool:
        """Send one batch; False when there is nothing to send or no room to send it."""
        if self._under_way and self._clock.monotonic() >= self._resend_at:
            log.info("telemetry.resending", after=self._sent)
            self._forget_sent()
        room = WINDOW - len(self._under_way)
        if room <= 0:
            return False
        records = _fitting(self._outbox.waiting(after=self._sent, limit=min(BATCH, room)))
        if not records:
            return False
        batch = Telemetry(
            self._outbox.epoch,
            [
                TelemetryRecord(r.seq, r.module, r.output, r.at_ms, r.body, r.properties)
                for r in records
            ],
        )
        if not self._transport.publish(UpKind.TELEMETRY, codec.encode(batch)):
            return False
        if not self._under_way:
            self._resend_at = self._clock.monotonic() + RESEND_SECONDS
        self._sent = records[-1].seq
        self._under_way += [record.seq for record in records]
        return True

    def _forget_sent(self) -> None:
        self._sent = 0
        self._under_way.clear()


def _fitting(records: Sequence[OutboxRecord]) -> Sequence[OutboxRecord]:
    """Return as many records from the front as one message holds, at least one."""
    total = 0
    for count, record in enumerate(records):
        total += len(record.body)
        if count and total > BATCH_BYTES:
            return records[:count]
    return records
