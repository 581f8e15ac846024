"""The hub is told what is so until it says that it knows."""

from __future__ import annotations

from agent_world import Disk, trust

from agent.memory import Memory
from agent.reporter import Reporter
from protocol import codec
from protocol.messages import Reported, ReportedAck
from protocol.topics import UpKind
from simulator.fakes import ManualClock


class Wire:
    """A transport that notes what it is given, or refuses."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, dict[str, object]]] = []
        self.is_up = True

    def publish(self, kind: UpKind, body: bytes) -> bool:
        assert kind is UpKind.REPORTED
        if self.is_up:
            message = codec.decode(body, Reported)
            self.sent.append((message.revision, message.reported))
        return self.is_up

    async def run(self, on_event: object) -> None:
        raise AssertionError(f"nobody runs it: {on_event}")


class World:
    def __init__(self) -> None:
        self.wire, self.clock, self.disk = Wire(), ManualClock(), Disk()
        self.reporter = Reporter(Memory(self.disk, trust()), self.wire, self.clock)

    def acknowledge(self, revision: int) -> None:
        self.reporter.acknowledged(codec.encode(ReportedAck(revision)))


def test_news_is_sent_at_once_and_the_same_is_not_sent_again() -> None:
    world = World()

    news = [world.reporter.report({"a": n}) for n in (1, 1, 2)]

    assert (news, world.wire.sent) == ([True, False, True], [(1, {"a": 1}), (2, {"a": 2})])
    assert world.reporter.newest == {"a": 2}


def test_before_the_first_report_there_is_none() -> None:
    assert World().reporter.newest == {}


def test_what_is_not_acknowledged_is_sent_again_after_a_while() -> None:
    world = World()
    world.reporter.report({"a": 1})
    world.clock.advance(9)
    world.reporter.report({"a": 1})
    world.clock.advance(1)
    world.reporter.report({"a": 1})

    assert world.wire.sent == [(1, {"a": 1}), (1, {"a": 1})]


def test_what_is_acknowledged_is_not_sent_again() -> None:
    world = World()
    world.reporter.report({"a": 1})
    world.acknowledge(1)
    world.clock.advance(60)
    world.reporter.report({"a": 1})

    assert len(world.wire.sent) == 1


def test_an_old_acknowledgement_does_not_count_for_the_newest() -> None:
    world = World()
    world.reporter.report({"a": 1})
    world.reporter.report({"a": 2})
    world.acknowledge(1)
    world.clock.advance(10)
    world.reporter.report({"a": 2})

    assert world.wire.sent[-1] == (2, {"a": 2})
    assert len(world.wire.sent) == 3


def test_a_report_waits_for_the_hub() -> None:
    world = World()
    world.wire.is_up = False
    world.reporter.report({"a": 1})
    world.wire.is_up = True
    world.reporter.report({"a": 1})

    assert world.wire.sent == [(1, {"a": 1})]


def test_a_new_connection_is_told_everything_again() -> None:
    """The hub may have been restored from a backup."""
    world = World()
    world.reporter.report({"a": 1})
    world.acknowledge(1)
    world.reporter.connected()
    world.reporter.report({"a": 1})

    assert world.wire.sent == [(1, {"a": 1}), (1, {"a": 1})]


def test_a_hub_that_remembers_more_than_the_device_is_overtaken() -> None:
    world = World()
    world.reporter.report({"a": 1})
    world.acknowledge(40)
    world.reporter.report({"a": 1})

    assert world.wire.sent == [(1, {"a": 1}), (41, {"a": 1})]


def test_revisions_go_on_after_a_restart() -> None:
    world = World()
    world.reporter.report({"a": 1})
    again = Reporter(Memory(world.disk, trust()), world.wire, world.clock)
    again.report({"a": 1})

    first, second = (revision for revision, _ in world.wire.sent)
    assert second > first
