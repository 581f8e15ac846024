"""Records reach the hub in order, and are forgotten only when the hub has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from agent_world import VirtualClock, run_virtual, until
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.ports import MAX_BODY_BYTES, OutboxRecord
from agent.courier import BATCH, RESEND_SECONDS, WINDOW, Courier
from protocol import codec
from protocol.errors import Code, InvalidError, UnavailableError
from protocol.messages import Ack, Telemetry
from protocol.topics import UpKind
from simulator.memory_outbox import MemoryOutbox

EPOCH = "e1"


@dataclass
class Hub:
    """The far end: what it was sent, what it holds; it answers only when it is told to."""

    batches: list[list[int]] = field(default_factory=list)
    held: set[int] = field(default_factory=set)
    largest_bytes: int = 0
    is_up: bool = True
    on_batch: Callable[[list[int]], None] = lambda _seqs: None

    def publish(self, kind: UpKind, body: bytes) -> bool:
        assert kind is UpKind.TELEMETRY
        if not self.is_up:
            return False
        batch = codec.decode(body, Telemetry)
        assert batch.epoch == EPOCH
        self.largest_bytes = max(self.largest_bytes, len(body))
        seqs = [record.seq for record in batch.records]
        self.batches.append(seqs)
        self.on_batch(seqs)
        return True

    async def run(self, on_event: object) -> None:
        raise AssertionError(f"nobody runs it: {on_event}")

    @property
    def sent(self) -> list[int]:
        return [seq for batch in self.batches for seq in batch]


class World:
    """A courier that runs between an outbox and a hub."""

    def __init__(self, records: int = 0, *, size: int = 1, is_up: bool = True) -> None:
        self.outbox, self.hub = MemoryOutbox(EPOCH), Hub(is_up=is_up)
        self.ledger: list[tuple[int, int]] = []
        self.courier = Courier(
            self.outbox, self.hub, VirtualClock(), lambda _epoch, ranges: self.ledger.extend(ranges)
        )
        self.add(records, size=size)

    def add(self, records: int, *, size: int = 1) -> None:
        for _ in range(records):
            self.outbox.add("digits", "results", 1, b"x" * size, {})

    def acknowledge(
        self, *ranges: tuple[int, int], refused: Sequence[int] = (), epoch: str = EPOCH
    ) -> None:
        self.courier.acknowledged(codec.encode(Ack(epoch, list(ranges), list(refused))))

    async def running(self, seconds: float) -> None:
        task = asyncio.create_task(self.courier.run())
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.wait([task])


def test_records_leave_in_order_and_in_batches() -> None:
    world = World(250)

    run_virtual(world.running(1))

    assert [len(batch) for batch in world.hub.batches] == [BATCH, BATCH, 50]
    assert world.hub.sent == list(range(1, 251))


def test_never_more_than_a_window_is_under_way() -> None:
    async def scenario() -> None:
        task = asyncio.create_task(world.courier.run())
        for _ in range(WINDOW):
            world.add(1)
            world.courier.wake()
            await asyncio.sleep(0)
        world.add(500)
        world.courier.wake()
        await asyncio.sleep(1)
        assert len(world.hub.sent) == WINDOW
        world.acknowledge((1, 30))
        await asyncio.sleep(1)
        task.cancel()

    world = World()
    run_virtual(scenario())

    assert world.hub.sent == list(range(1, WINDOW + 31))


def test_what_is_acknowledged_is_forgotten_and_written_down() -> None:
    async def scenario() -> None:
        await world.running(1)
        world.acknowledge((1, 3), (5, 5))

    world = World(5)
    run_virtual(scenario())

    assert [record.seq for record in world.outbox.waiting(after=0, limit=9)] == [4]
    assert world.ledger == [(1, 3), (5, 5)]


def test_what_is_not_acknowledged_in_time_is_sent_again() -> None:
    async def scenario() -> None:
        world.hub.on_batch = lambda seqs: world.acknowledge((seqs[0], seqs[0]))
        await world.running(RESEND_SECONDS * 1.5)

    world = World(3)
    run_virtual(scenario())

    assert world.hub.batches == [[1, 2, 3], [2, 3]]


def test_a_lost_record_is_sent_again_although_younger_ones_arrive_all_the_time() -> None:
    async def scenario() -> None:
        lost = [1]
        world.hub.on_batch = lambda seqs: (
            lost.clear() if lost == seqs else world.acknowledge((seqs[0], seqs[-1]))
        )
        task = asyncio.create_task(world.courier.run())
        for _ in range(40):
            world.add(1)
            world.courier.wake()
            await asyncio.sleep(1)
        task.cancel()

    world = World()
    run_virtual(scenario())

    assert world.outbox.counts().waiting == 0


def test_a_late_acknowledgement_of_younger_records_does_not_hide_lost_ones() -> None:
    async def scenario() -> None:
        task = asyncio.create_task(world.courier.run())
        await asyncio.sleep(RESEND_SECONDS + 3)  # everything was sent twice
        world.acknowledge((101, 200))
        await asyncio.sleep(RESEND_SECONDS * 2)
        task.cancel()

    world = World(200)
    run_virtual(scenario())

    assert world.hub.sent.count(1) > 2


def test_acknowledgements_may_come_in_any_order_and_twice() -> None:
    async def scenario() -> None:
        await world.running(1)
        for ranges in (((4, 6),), ((1, 2), (5, 6)), ((3, 3),), ((1, 6),)):
            world.acknowledge(*ranges)

    world = World(6)
    run_virtual(scenario())

    assert world.outbox.counts() == type(world.outbox.counts())(6, 6, 0, 0)


def test_an_acknowledgement_for_another_epoch_is_ignored() -> None:
    async def scenario() -> None:
        await world.running(1)
        world.acknowledge((1, 3), epoch="e0")

    world = World(3)
    run_virtual(scenario())

    assert (world.outbox.counts().waiting, world.ledger) == (3, [])


def test_refused_records_are_counted_and_not_sent_again() -> None:
    async def scenario() -> None:
        task = asyncio.create_task(world.courier.run())
        await asyncio.sleep(1)
        world.acknowledge((1, 1), refused=[2])
        await asyncio.sleep(RESEND_SECONDS * 2)
        task.cancel()

    world = World(2)
    run_virtual(scenario())

    counts = world.outbox.counts()
    assert (counts.acknowledged, counts.refused, counts.waiting) == (1, 1, 0)
    assert world.hub.sent == [1, 2]


@pytest.mark.parametrize("ranges", [[(3, 1)], [(-5, 10**18)], [(0, 0), (7, 9)]])
def test_odd_ranges_do_no_harm(ranges: list[tuple[int, int]]) -> None:
    async def scenario() -> None:
        await world.running(1)
        world.acknowledge(*ranges)

    world = World(3)
    run_virtual(scenario())

    assert world.outbox.counts().waiting in (0, 3)


def test_an_acknowledgement_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(InvalidError) as caught:
        World().courier.acknowledged(b"{}")

    assert caught.value.code is Code.MESSAGE_INVALID


def test_a_new_connection_is_told_everything_that_is_not_acknowledged() -> None:
    async def scenario() -> None:
        task = asyncio.create_task(world.courier.run())
        await asyncio.sleep(1)
        world.acknowledge((1, 1))
        world.courier.connected()
        await asyncio.sleep(1)
        task.cancel()

    world = World(3)
    run_virtual(scenario())

    assert world.hub.batches == [[1, 2, 3], [2, 3]]


def test_records_wait_while_the_hub_is_away() -> None:
    async def scenario() -> None:
        task = asyncio.create_task(world.courier.run())
        await asyncio.sleep(60)
        world.hub.is_up = True
        await asyncio.sleep(RESEND_SECONDS)
        task.cancel()

    world = World(3, is_up=False)
    run_virtual(scenario())

    assert world.hub.batches == [[1, 2, 3]]


@pytest.mark.parametrize("size", [1000, 60_000, MAX_BODY_BYTES])
def test_no_message_is_too_large_for_a_packet(size: int) -> None:
    world = World(20, size=size)

    run_virtual(world.running(1))

    assert world.hub.sent == list(range(1, 21))
    assert world.hub.largest_bytes < 1024 * 1024 - 64 * 1024


def test_a_store_that_cannot_be_read_for_a_while_does_not_end_the_courier() -> None:
    class Unsteady(MemoryOutbox):
        failures = 3

        def waiting(self, *, after: int, limit: int) -> Sequence[OutboxRecord]:
            if self.failures:
                self.failures -= 1
                raise UnavailableError("the disk fails", code=Code.DATABASE_UNAVAILABLE)
            return super().waiting(after=after, limit=limit)

    async def scenario() -> Hub:
        outbox, hub = Unsteady(EPOCH), Hub()
        outbox.add("digits", "results", 1, b"x", {})
        task = asyncio.create_task(Courier(outbox, hub, VirtualClock()).run())
        await asyncio.sleep(RESEND_SECONDS * 2)
        assert not task.done()
        task.cancel()
        return hub

    assert run_virtual(scenario()).sent[:1] == [1]


fates = st.tuples(
    st.sampled_from(["arrives", "is lost", "breaks the connection", "is refused entry"]),
    st.sampled_from([None, 0.0, 0.5, 3.0, 12.0]),  # when the acknowledgement comes, if it does
)


@settings(max_examples=40)
@given(script=st.lists(fates, max_size=12), arrivals=st.lists(st.integers(1, 400), max_size=4))
def test_over_a_bad_line_everything_ends_acknowledged_once(
    script: list[tuple[str, float | None]], arrivals: list[int]
) -> None:
    async def scenario() -> None:
        loop, left = asyncio.get_running_loop(), list(script)

        def on_batch(seqs: list[int]) -> None:
            assert len(world.courier._under_way) <= WINDOW
            fate, delay = left.pop(0) if left else ("arrives", 0.0)
            if fate == "breaks the connection":
                loop.call_later(1.0, world.courier.connected)
            if fate == "arrives":
                world.hub.held.update(seqs)
                if delay is not None:
                    loop.call_later(delay, world.acknowledge, (seqs[0], seqs[-1]))
            world.hub.is_up = fate != "is refused entry"
            loop.call_later(2.0, lambda: setattr(world.hub, "is_up", True))

        world.hub.on_batch = on_batch
        task = asyncio.create_task(world.courier.run())
        for count in arrivals:
            world.add(count)
            world.courier.wake()
            await asyncio.sleep(1)
        await until(lambda: world.outbox.counts().waiting == 0, seconds=1000)
        task.cancel()

    world = World()
    run_virtual(scenario())

    counts = world.outbox.counts()
    assert counts.acknowledged == counts.stored == sum(arrivals)
    assert world.hub.held == set(range(1, sum(arrivals) + 1))
