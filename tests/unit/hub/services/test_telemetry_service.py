"""Telemetry: acknowledged means committed; repeats, refusals, failures, back-pressure."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from hub_lab import Lab, make_lab
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from hub.adapters.memory import MemoryStore
from hub.core.ports import UnitOfWork
from hub.core.telemetry import TelemetryFilter
from hub.services.telemetry import (
    MAX_BATCH,
    MAX_BODY_BYTES,
    TelemetryIngest,
    TelemetryService,
    ranges,
)
from protocol.errors import Code, FleetError, UnavailableError
from protocol.ids import DeviceId
from protocol.messages import Ack, Telemetry, TelemetryRecord

DEVICE = DeviceId("press-7")


class CountingStore(MemoryStore):
    """Counts write transactions, and refuses as many of them as it is told to."""

    def __init__(self) -> None:
        super().__init__(wait_seconds=0.2)
        self.writes = 0
        self.refuse = 0

    @contextmanager
    def begin(self, *, write: bool = True) -> Iterator[UnitOfWork]:
        self.writes += write
        if write and self.refuse:
            self.refuse -= 1
            raise UnavailableError("the disk is full", code=Code.DISK_FULL)
        with super().begin(write=write) as work:
            yield work


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


@pytest.fixture
def lab(tmp_path: Path, store: CountingStore) -> Lab:
    return make_lab(tmp_path, store=store)


def record(seq: int, body: bytes = b"{}", at: int = 0, **properties: str) -> TelemetryRecord:
    return TelemetryRecord(seq, "m", "out", at, body, properties)


def batch(*seqs: int, epoch: str = "e") -> Telemetry:
    return Telemetry(epoch, [record(seq) for seq in seqs])


def write(lab: Lab, *records: TelemetryRecord) -> Ack:
    return lab.services.telemetry.write([(DEVICE, Telemetry("e", list(records)))])[0]


@given(st.lists(st.integers(1, 30)))
def test_ranges_are_the_numbers_in_few_words(numbers: list[int]) -> None:
    found = ranges(numbers)

    assert [n for low, high in found for n in range(low, high + 1)] == sorted(set(numbers))
    assert all(b[0] > a[1] + 1 for a, b in pairwise(found))


def test_what_is_stored_is_acknowledged_and_can_be_read(lab: Lab) -> None:
    ack = write(lab, *batch(1, 2, 3, 7).records)

    rows = lab.services.telemetry.tail(TelemetryFilter())
    assert ack == Ack("e", [(1, 3), (7, 7)])
    assert [(row.device, row.seq, row.body) for row in rows] == [
        (DEVICE, seq, b"{}") for seq in (1, 2, 3, 7)
    ]
    assert lab.services.telemetry.counts() == (4, {DEVICE: 4})


def test_repeats_are_acknowledged_and_stored_once(lab: Lab) -> None:
    write(lab, *batch(1, 2).records)
    with capture_logs() as logs:
        ack = write(lab, *batch(2, 3, 3).records)

    assert ack == Ack("e", [(2, 3)])
    assert lab.services.telemetry.counts()[0] == 3
    assert logs == [
        {"event": "telemetry.stored", "log_level": "info", "new": 1, "again": 2, "refused": 0}
    ]


def test_the_same_numbers_of_another_epoch_are_other_records(lab: Lab) -> None:
    lab.services.telemetry.write([(DEVICE, batch(1)), (DEVICE, batch(1, epoch="f"))])

    assert lab.services.telemetry.counts()[0] == 2


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (record(2, b"x" * (MAX_BODY_BYTES + 1)), "262145 bytes"),
        (record(2, at=2**53 - 1), "beyond the year 9999"),
        (record(2, a="\0"), "NUL"),
    ],
)
def test_what_can_never_be_stored_is_named_and_kept_apart(
    lab: Lab, bad: TelemetryRecord, reason: str
) -> None:
    ack = write(lab, record(1), bad, record(3))

    assert ack == Ack("e", [(1, 1), (3, 3)], [2])
    with lab.store.begin(write=False) as work:
        (row,) = work.telemetry.quarantined()
    assert reason in row.reason
    assert len(row.body) <= MAX_BODY_BYTES


def test_an_unreadable_message_is_kept_within_bounds(lab: Lab) -> None:
    lab.services.telemetry.quarantine(DEVICE, "r" * 1000, b"x" * (MAX_BODY_BYTES + 1))

    with lab.store.begin(write=False) as work:
        (row,) = work.telemetry.quarantined(DEVICE)
    assert (len(row.reason), len(row.body)) == (500, MAX_BODY_BYTES)


def test_scores_are_by_device_or_by_profile(lab: Lab) -> None:
    lab.enroll("press-7", "laptop")
    write(lab, record(1, b'{"label":7}', input="x"), record(2, b'{"label":1}', input="x"))

    telemetry = lab.services.telemetry
    assert telemetry.score({"x": 7}, by="device", module=None)[DEVICE].accuracy == 0.5
    assert telemetry.score({"x": 7}, by="profile", module="m")["laptop"].answered == 2
    assert telemetry.score({"x": 7}, by="device", module="other") == {}


# ---- the ingest ----------------------------------------------------------------------------------


def running(
    service: TelemetryService,
    story: Callable[[TelemetryIngest], Awaitable[None]],
    *,
    queue_size: int = 1000,
) -> None:
    async def main() -> None:
        ingest = TelemetryIngest(service, queue_size=queue_size)
        task = asyncio.create_task(ingest.run())
        try:
            await story(ingest)
        finally:
            task.cancel()
            await asyncio.wait([task])

    asyncio.run(main())


def test_what_arrives_together_is_committed_together(lab: Lab, store: CountingStore) -> None:
    async def story(ingest: TelemetryIngest) -> None:
        waiting = [ingest.add(DeviceId(f"d-{n}"), batch(n, n + 1)) for n in range(1, 101)]
        acks = await asyncio.gather(*waiting)
        assert [ack.ranges for ack in acks] == [[(n, n + 1)] for n in range(1, 101)]

    running(lab.services.telemetry, story)

    assert store.writes <= 2
    assert lab.services.telemetry.counts()[0] == 200


def test_a_commit_has_a_limit(lab: Lab, store: CountingStore) -> None:
    async def story(ingest: TelemetryIngest) -> None:
        big = Telemetry("e", [record(n) for n in range(1, 1001)])
        await asyncio.gather(*(ingest.add(DeviceId(f"d-{n}"), big) for n in range(6)))

    running(lab.services.telemetry, story)

    assert 6000 / MAX_BATCH <= store.writes <= 6


def test_large_bodies_end_a_commit_too(lab: Lab, store: CountingStore) -> None:
    async def story(ingest: TelemetryIngest) -> None:
        big = Telemetry("e", [record(n, b"x" * MAX_BODY_BYTES) for n in range(1, 17)])
        await asyncio.gather(*(ingest.add(DeviceId(f"d-{n}"), big) for n in range(6)))

    running(lab.services.telemetry, story)

    assert store.writes >= 3


def test_a_failed_commit_acknowledges_nobody_and_the_next_goes_on(
    lab: Lab, store: CountingStore
) -> None:
    async def story(ingest: TelemetryIngest) -> None:
        store.refuse = 1
        with capture_logs() as logs:
            outcomes = await asyncio.gather(
                *(ingest.add(DeviceId(f"d-{n}"), batch(1)) for n in range(3)),
                return_exceptions=True,
            )
        assert [type(each) for each in outcomes] == [UnavailableError] * 3
        assert [each["event"] for each in logs] == ["telemetry.failed"]
        assert lab.services.telemetry.counts()[0] == 0
        assert await ingest.add(DEVICE, batch(1)) == Ack("e", [(1, 1)])

    running(lab.services.telemetry, story)


def test_callers_wait_while_the_queue_is_full(lab: Lab) -> None:
    async def story() -> None:
        ingest = TelemetryIngest(lab.services.telemetry, queue_size=2)
        tasks = [asyncio.create_task(ingest.add(DEVICE, batch(n))) for n in range(1, 6)]
        for _ in range(10):
            await asyncio.sleep(0)
        assert ingest._queue.qsize() == 2
        runner = asyncio.create_task(ingest.run())
        await asyncio.gather(*tasks)
        runner.cancel()
        await asyncio.wait([runner])

    asyncio.run(story())

    assert lab.services.telemetry.counts()[0] == 5


def test_who_hangs_up_does_not_disturb_the_others(lab: Lab) -> None:
    async def story() -> None:
        ingest = TelemetryIngest(lab.services.telemetry)
        gone = asyncio.create_task(ingest.add(DEVICE, batch(1)))
        stays = asyncio.create_task(ingest.add(DEVICE, batch(2)))
        await asyncio.sleep(0)
        gone.cancel()
        runner = asyncio.create_task(ingest.run())
        assert await stays == Ack("e", [(2, 2)])
        runner.cancel()
        await asyncio.wait([runner, gone])

    asyncio.run(story())


def test_nobody_waits_for_an_ingest_that_has_ended(lab: Lab) -> None:
    async def story() -> None:
        ingest = TelemetryIngest(lab.services.telemetry)
        with lab.store.begin():  # the commit hangs
            runner = asyncio.create_task(ingest.run())
            first = asyncio.create_task(ingest.add(DEVICE, batch(1)))
            await asyncio.sleep(0.01)
            second = asyncio.create_task(ingest.add(DEVICE, batch(2)))
            await asyncio.sleep(0)
            runner.cancel()
            outcomes = await asyncio.gather(first, second, return_exceptions=True)
        for outcome in outcomes:
            assert isinstance(outcome, FleetError)
            assert (outcome.code, outcome.retryable) == (Code.BUSY, True)
        await asyncio.wait([runner])

    asyncio.run(story())
