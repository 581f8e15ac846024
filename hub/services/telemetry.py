"""Telemetry: take it in (acknowledged means committed), read it, judge it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from hub.core.ports import Clock, Store
from hub.core.telemetry import Measurement, Quarantined, Score, TelemetryFilter, score
from protocol.errors import Code, InvalidError, UnavailableError
from protocol.ids import DeviceId
from protocol.messages import Ack, Telemetry, TelemetryRecord

MAX_BATCH = 2000
MAX_BATCH_BYTES = 8 * 1024 * 1024
MAX_BODY_BYTES = 256 * 1024
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MS = int((datetime(9999, 1, 1, tzinfo=UTC) - _EPOCH) / timedelta(milliseconds=1))
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class TelemetryService:
    """Reading and writing of measurements."""

    store: Store
    clock: Clock

    def write(self, batches: Sequence[tuple[DeviceId, Telemetry]]) -> list[Ack]:
        """Commit batches in one transaction and return what each device may forget.

        A record that can never be stored is quarantined and named in `Ack.refused`. Raises
        FleetError (`database-unavailable`, `disk-full`) when nothing was committed.
        """
        now, rows, bad, acks = self.clock.now(), [], [], []
        for device, batch in batches:
            refused: dict[int, None] = {}  # in order, each once
            for record in batch.records:
                if why := _problem(record):
                    bad.append(Quarantined(device, now, why, record.body[:MAX_BODY_BYTES]))
                    refused[record.seq] = None
                else:
                    rows.append(_row(device, batch.epoch, record, now))
            accepted = [r.seq for r in batch.records if r.seq not in refused]
            acks.append(Ack(batch.epoch, ranges(accepted), list(refused)))
        with self.store.begin() as work:
            new = work.telemetry.add(rows)
            if bad:
                work.telemetry.quarantine(bad)
            work.commit()
        if new != len(rows) or bad:
            log.info("telemetry.stored", new=new, again=len(rows) - new, refused=len(bad))
        return acks

    def quarantine(self, device: DeviceId, reason: str, body: bytes) -> None:
        """Keep a message nobody could read."""
        row = Quarantined(device, self.clock.now(), reason[:500], body[:MAX_BODY_BYTES])
        with self.store.begin() as work:
            work.telemetry.quarantine([row])
            work.commit()
        log.warning("telemetry.quarantined", device=device, reason=reason)

    def tail(self, wanted: TelemetryFilter) -> Sequence[Measurement]:
        """Return matching rows in order of arrival."""
        with self.store.begin(write=False) as work:
            return work.telemetry.tail(wanted)

    def counts(self) -> tuple[int, dict[DeviceId, int]]:
        """Return (rows stored, rows stored per device)."""
        with self.store.begin(write=False) as work:
            return work.telemetry.count(), work.telemetry.counts_by_device()

    def score(
        self, truth: Mapping[str, Any], *, by: str, module: str | None, key: str = "label"
    ) -> dict[str, Score]:
        """Judge what arrived against true labels, grouped by `device` or `profile`.

        Raises:
            InvalidError: `request-invalid`, when the truth names none of the inputs that were
                answered, or none of the answers to them holds `key`.
        """
        with self.store.begin(write=False) as work:
            profiles = {d.id: d.profile for d in work.devices.list()} if by == "profile" else {}
            rows = work.telemetry.each(TelemetryFilter(module=module, limit=None))
            grouped = ((profiles.get(row.device, row.device), row) for row in rows)
            found = score(grouped, truth, key=key)
        _check_score(found, key)
        return found


def _check_score(found: Mapping[str, Score], key: str) -> None:
    answered = sum(score.answered for score in found.values())
    known = sum(score.known for score in found.values())
    if answered and not known:
        raise InvalidError(
            f"the truth names none of the inputs of the {answered} answers",
            code=Code.REQUEST_INVALID,
            hint="an input is named by its file without the ending: 'w000' for 'w000.json'",
        )
    if known and not any(score.labelled for score in found.values()):
        raise InvalidError(
            f"none of the {known} answers with a known truth holds {key!r}",
            code=Code.REQUEST_INVALID,
            hint="name the key of the label in the answers: `--key`",
        )


def ranges(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Return sorted numbers as inclusive ranges."""
    out: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if out and out[-1][1] == number - 1:
            out[-1] = (out[-1][0], number)
        else:
            out.append((number, number))
    return out


def _problem(record: TelemetryRecord) -> str:
    if len(record.body) > MAX_BODY_BYTES:
        return f"body of {len(record.body)} bytes, the limit is {MAX_BODY_BYTES}"
    if record.at > _LAST_MS:
        return f"time {record.at} is beyond the year 9999"
    texts = [record.module, record.output, *record.properties, *record.properties.values()]
    return "a text holds a NUL character" if any("\0" in text for text in texts) else ""


def _row(device: DeviceId, epoch: str, record: TelemetryRecord, now: datetime) -> Measurement:
    return Measurement(
        device=device,
        epoch=epoch,
        seq=record.seq,
        module=record.module,
        output=record.output,
        at=_EPOCH + timedelta(milliseconds=record.at),
        received_at=now,
        body=record.body,
        properties=record.properties,
    )


_Waiting = tuple[DeviceId, Telemetry, "asyncio.Future[Ack]"]


def _measure(batch: Telemetry) -> tuple[int, int]:
    return len(batch.records), sum(len(record.body) for record in batch.records)


def _refuse(waiting: Sequence[_Waiting], error: Exception) -> None:
    for _, _, done in waiting:
        if not done.done():
            done.set_exception(error)


def _stopping() -> UnavailableError:
    return UnavailableError("the hub is stopping", code=Code.BUSY, hint="send it again later")


class TelemetryIngest:
    """Gathers what arrives at the same time into one commit.

    While one batch is being committed the next one fills, so the batch size follows the load and a
    lone message waits for nobody. The queue is bounded: callers wait, and the bus stops reading.
    """

    def __init__(self, service: TelemetryService, *, queue_size: int = 1000) -> None:
        self._service = service
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(queue_size)

    async def add(self, device: DeviceId, batch: Telemetry) -> Ack:
        """Return the acknowledgement after the commit, or raise what the commit raised."""
        done: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()
        await self._queue.put((device, batch, done))
        return await done

    async def run(self) -> None:
        """Commit batches until cancelled; whoever still waits then is told to come back."""
        waiting: list[_Waiting] = []
        try:
            while True:
                waiting = [await self._queue.get()]
                records, size = _measure(waiting[0][1])
                while records < MAX_BATCH and size < MAX_BATCH_BYTES and not self._queue.empty():
                    waiting.append(self._queue.get_nowait())
                    more, bytes_more = _measure(waiting[-1][1])
                    records, size = records + more, size + bytes_more
                await self._commit(waiting)
        finally:
            while not self._queue.empty():
                waiting.append(self._queue.get_nowait())
            _refuse(waiting, _stopping())

    async def _commit(self, waiting: list[_Waiting]) -> None:
        batches = [(device, batch) for device, batch, _ in waiting]
        try:
            acks = await asyncio.to_thread(self._service.write, batches)
        except Exception as error:  # one failed commit must not end the ingest
            log.exception("telemetry.failed", messages=len(waiting))
            _refuse(waiting, error)
            return
        for (_, _, done), ack in zip(waiting, acks, strict=True):
            if not done.done():
                done.set_result(ack)
