"""The inbox, the outbox and presence on their own: order, bounds, and what a failure costs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from hub.adapters.broker.presence import Presence
from hub.adapters.front.inbox import Inbox, Settled
from hub.adapters.front.outbox import Outbox
from protocol.errors import Code, FleetError
from protocol.ids import DeviceId
from protocol.mqtt import Publish
from tests.mqtt_lab import Recorder

D1 = DeviceId("d1")


class Desk:
    """An inbox with its results, and work that ends when told to."""

    def __init__(self, max_count: int = 10, max_bytes: int = 100) -> None:
        self.settled: list[Settled] = []
        spawn = asyncio.get_running_loop().create_task
        self.inbox = Inbox(max_count, max_bytes, spawn, self.settled.append)
        self._ends: dict[int, asyncio.Future[None]] = {}

    def take(self, packet_id: int, size: int = 1) -> None:
        end = self._ends[packet_id] = asyncio.get_running_loop().create_future()

        async def work() -> None:
            await end

        self.inbox.take(packet_id, size, work())

    async def end(self, packet_id: int, error: Exception | None = None) -> None:
        end = self._ends[packet_id]
        end.set_result(None) if error is None else end.set_exception(error)
        for _ in range(3):
            await asyncio.sleep(0)

    @property
    def reported(self) -> list[int]:
        return [each.packet_id for each in self.settled]


def play(scenario: Callable[[Desk], Coroutine[Any, Any, None]], **bounds: int) -> None:
    async def main() -> None:
        await scenario(Desk(**bounds))

    asyncio.run(main())


def test_results_are_reported_in_order_of_arrival() -> None:
    async def scenario(desk: Desk) -> None:
        for packet_id in (7, 3, 5):
            desk.take(packet_id)
        await desk.end(5)
        await desk.end(3)
        assert desk.reported == []
        await desk.end(7)
        assert desk.reported == [7, 3, 5]

    play(scenario)


def test_an_inbox_is_full_by_count() -> None:
    async def scenario(desk: Desk) -> None:
        seen = []
        for packet_id in (1, 2):
            desk.take(packet_id)
            seen.append(desk.inbox.is_full)
        await desk.end(1)
        assert [*seen, desk.inbox.is_full] == [False, True, False]
        await desk.end(2)

    play(scenario, max_count=2)


def test_an_inbox_is_full_by_bytes() -> None:
    async def scenario(desk: Desk) -> None:
        seen = [desk.inbox.is_full]
        desk.take(1, size=100)
        seen.append(desk.inbox.is_full)
        await desk.end(1)
        assert [*seen, desk.inbox.is_full] == [False, True, False]

    play(scenario, max_bytes=100)


def test_nothing_is_reported_behind_a_lost_message() -> None:
    async def scenario(desk: Desk) -> None:
        for packet_id in (1, 2, 3):
            desk.take(packet_id)
        await desk.end(1)
        await desk.end(2, OSError("the disk is away"))
        await desk.end(3)
        assert desk.reported == [1, 2]
        assert [each.is_lost for each in desk.settled] == [False, True]

    play(scenario)


@pytest.mark.parametrize(
    ("code", "is_lost"), [(Code.MESSAGE_INVALID, False), (Code.DATABASE_UNAVAILABLE, True)]
)
def test_only_what_may_work_later_has_to_come_again(code: Code, *, is_lost: bool) -> None:
    assert Settled(1, FleetError("no", code=code)).is_lost is is_lost


def test_cancelled_work_has_to_come_again() -> None:
    async def scenario(desk: Desk) -> None:
        desk.take(1)
        desk.inbox.tasks[0].cancel()
        for _ in range(3):
            await asyncio.sleep(0)
        assert desk.settled[0].is_lost

    play(scenario)


def test_packet_identifiers_wrap_and_skip_those_in_use() -> None:
    sent: list[Publish] = []
    outbox = Outbox(2, 100, sent.append)
    outbox.put("t", b"never acknowledged")
    for _ in range(65_534):
        outbox.put("t", b"")
        outbox.acknowledge(sent[-1].packet_id)

    outbox.put("t", b"")

    assert [sent[0].packet_id, sent[-2].packet_id, sent[-1].packet_id] == [1, 65_535, 2]


def test_a_foreign_acknowledgement_opens_no_window() -> None:
    sent: list[Publish] = []
    outbox = Outbox(1, 100, sent.append)
    outbox.put("t", b"1")
    outbox.put("t", b"2")

    outbox.acknowledge(99)

    assert [each.payload for each in sent] == [b"1"]


def test_presence_changes_reach_the_handler_one_after_the_other() -> None:
    async def main() -> None:
        recorder = Recorder()
        presence = Presence(recorder)
        changes = [presence.arrive(D1), presence.arrive(D1), presence.leave(D1)]
        await asyncio.gather(*changes, presence.arrive(D1), presence.leave(D1))
        assert recorder.events == [("connected", "d1"), ("disconnected", "d1")] * 2
        assert presence.devices == frozenset()

    asyncio.run(main())
