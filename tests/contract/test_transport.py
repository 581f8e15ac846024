"""Every transport, in memory and over a real broker: the same promises to the agent."""

from __future__ import annotations

import asyncio
import os
import resource
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, Protocol

import pytest
from mosquitto_lab import LIMIT_SECONDS, PACKET_LIMIT, HubClient, Mosquitto, free_port
from tls_lab import DAY, Authority, make_authority

from agent.adapters.clock import SystemClock
from agent.adapters.mqtt.link import LinkOptions
from agent.adapters.mqtt.transport import PahoTransport
from agent.adapters.trust import client_context
from agent.core.backoff import Backoff
from agent.core.ports import (
    Connected,
    Disconnected,
    Received,
    Transport,
    TransportEvent,
)
from protocol import codec
from protocol.errors import Code
from protocol.ids import DeviceId
from protocol.messages import MqttEndpoint, Status
from protocol.topics import DownKind, UpKind
from simulator.fake_transport import FakeTransport
from simulator.link import Cut, LinkProxy

DEVICE = DeviceId("press-7")
PRESENT, ABSENT = codec.encode(Status(connected=True)), codec.encode(Status(connected=False))
QUICK = Backoff(first=0.01, ceiling=0.05)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while not condition():  # noqa: ASYNC110 - what it waits for happens in another process
            await asyncio.sleep(0.005)


class World:
    """A transport that runs, what it told the agent, and what the hub heard."""

    def __init__(self) -> None:
        self.events: list[TransportEvent] = []
        self.heard: list[tuple[UpKind, bytes]] = []
        self.transport: Transport
        self.send: Callable[[DownKind, bytes], object]
        self.cut: Callable[[], Awaitable[None]]
        self.silence: Callable[[], Awaitable[None]]
        self.heal: Callable[[], Awaitable[None]]
        self.task: asyncio.Task[None]

    def count(self, kind: type[TransportEvent]) -> int:
        return sum(isinstance(event, kind) for event in self.events)

    def telemetry(self) -> list[bytes]:
        return [body for kind, body in self.heard if kind is UpKind.TELEMETRY]

    def presence(self) -> list[bytes]:
        return [body for kind, body in self.heard if kind is UpKind.STATUS]

    def run(self) -> None:
        self.task = asyncio.create_task(self.transport.run(self.events.append))

    async def connected(self) -> None:
        self.run()
        await until(lambda: self.count(Connected))

    async def stop(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


class MakeWorld(Protocol):
    """Opens a world of one kind; paho's takes options."""

    def __call__(self, **options: Any) -> Any: ...


@asynccontextmanager
async def fake_world(**_: Any) -> AsyncIterator[World]:
    world = World()
    fake = FakeTransport(lambda kind, body: world.heard.append((kind, body)))

    async def cut() -> None:
        fake.cut()

    async def silence() -> None:
        pass  # what it has not handed over yet is on its way

    async def heal() -> None:
        fake.heal()

    world.transport, world.send = fake, fake.send
    world.cut, world.silence, world.heal = cut, silence, heal
    yield world
    await world.stop()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return make_authority()


@pytest.fixture(scope="module")
def broker(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path_factory.mktemp("mosquitto"), authority)
    yield broker
    broker.stop()


class PahoLab:
    """What a transport on paho needs, in the variants the tests want."""

    def __init__(self, folder: Path, authority: Authority, broker: Mosquitto) -> None:
        self.folder, self.authority, self.broker = folder, authority, broker

    def context(
        self, *, trusted: Authority | None = None, valid: tuple[timedelta, timedelta] = (-DAY, DAY)
    ) -> ssl.SSLContext:
        credential = self.authority.credential(self.folder, DEVICE, valid=valid)
        return client_context((trusted or self.authority).pem, credential)

    def transport(
        self,
        *,
        port: int,
        make_context: Callable[[], ssl.SSLContext] | None = None,
        clock: Any = None,
        device: DeviceId = DEVICE,
        refused_backoff: Backoff = QUICK,
        **options: Any,
    ) -> PahoTransport:
        return PahoTransport(
            LinkOptions(device, MqttEndpoint("127.0.0.1", port), **options),
            make_context or self.context,
            clock or SystemClock(),
            Random(1),  # noqa: S311 - spreads delays, guards nothing
            backoff=QUICK,
            refused_backoff=refused_backoff,
        )

    @asynccontextmanager
    async def world(self, **options: Any) -> AsyncIterator[World]:
        world = World()
        proxy = LinkProxy(0, ("127.0.0.1", self.broker.port))
        await proxy.start()
        hub = HubClient(
            self.broker.hub_port, lambda _, kind, body: world.heard.append((kind, body))
        )
        await hub.ready()
        world.transport = self.transport(port=proxy.port, **options)
        world.send = lambda kind, body: hub.send(DEVICE, kind, body)
        world.cut, world.heal = proxy.cut, proxy.heal
        world.silence = lambda: proxy.cut(Cut.SILENCE)
        try:
            yield world
        finally:
            await world.stop()
            hub.close()
            await proxy.stop()


@pytest.fixture
def lab(tmp_path: Path, authority: Authority, broker: Mosquitto) -> PahoLab:
    return PahoLab(tmp_path, authority, broker)


@pytest.fixture(params=["fake", pytest.param("paho", marks=pytest.mark.broker)])
def make_world(request: pytest.FixtureRequest) -> MakeWorld:
    if request.param == "fake":
        return fake_world
    made: PahoLab = request.getfixturevalue("lab")
    return made.world


def play(make_world: MakeWorld, story: Callable[[World], Awaitable[None]], **options: Any) -> None:
    async def scenario() -> None:
        async with make_world(**options) as world:
            await story(world)

    asyncio.run(scenario())


# ---- every transport ----------------------------------------------------------------------------


def test_nothing_is_taken_before_it_is_connected(make_world: MakeWorld) -> None:
    async def story(world: World) -> None:
        taken = world.transport.publish(UpKind.TELEMETRY, b"early")
        await world.connected()

        assert not taken

    play(make_world, story)


def test_the_hub_hears_that_the_device_is_there(make_world: MakeWorld) -> None:
    async def story(world: World) -> None:
        await world.connected()
        await until(world.presence)

        assert world.presence() == [PRESENT]

    play(make_world, story)


def test_a_message_may_be_sent_from_within_the_event_that_it_is_connected(
    make_world: MakeWorld,
) -> None:
    async def story(world: World) -> None:
        taken: list[bool] = []

        def on_event(_: TransportEvent) -> None:
            taken.append(world.transport.publish(UpKind.DESIRED_GET, b"{}"))

        world.task = asyncio.create_task(world.transport.run(on_event))
        await until(lambda: (UpKind.DESIRED_GET, b"{}") in world.heard)

        assert taken == [True]

    play(make_world, story)


def test_what_the_device_says_arrives_in_order(make_world: MakeWorld) -> None:
    async def story(world: World) -> None:
        await world.connected()
        for number in range(10):
            assert world.transport.publish(UpKind.TELEMETRY, b"%d" % number)
        await until(lambda: len(world.telemetry()) == 10)

        assert world.telemetry() == [b"%d" % number for number in range(10)]

    play(make_world, story)


def test_what_the_hub_says_arrives_in_order_with_its_kind(make_world: MakeWorld) -> None:
    async def story(world: World) -> None:
        await world.connected()
        said = [(kind, b"%d" % number) for number in range(10) for kind in DownKind]
        for kind, body in said:
            world.send(kind, body)
        await until(lambda: len(world.events) == 1 + len(said))

        assert world.events[1:] == [Received(kind, body) for kind, body in said]

    play(make_world, story)


def test_a_congested_transport_takes_nothing_until_the_peer_has_taken_some(
    make_world: MakeWorld,
) -> None:
    async def story(world: World) -> None:
        await world.connected()
        taken = [world.transport.publish(UpKind.TELEMETRY, b"%d" % n) for n in range(40)]
        sent = sum(taken)
        await until(lambda: len(world.telemetry()) == sent)
        await until(lambda: world.transport.publish(UpKind.TELEMETRY, b"later"))
        await until(lambda: len(world.telemetry()) == sent + 1)

        assert 0 < sent <= 20
        assert taken == [True] * sent + [False] * (40 - sent)
        assert world.telemetry() == [*(b"%d" % n for n in range(sent)), b"later"]

    play(make_world, story)


def test_a_lost_hub_is_told_and_found_again(make_world: MakeWorld) -> None:
    async def story(world: World) -> None:
        await world.connected()
        await world.cut()
        await until(lambda: world.count(Disconnected))
        taken = world.transport.publish(UpKind.TELEMETRY, b"lost")
        await world.heal()
        await until(lambda: world.count(Connected) == 2)

        assert not taken
        assert [type(event) for event in world.events] == [Connected, Disconnected, Connected]

    play(make_world, story)


def test_the_hub_hears_that_a_lost_device_is_gone(make_world: MakeWorld) -> None:
    async def story(world: World) -> None:
        await world.connected()
        await until(world.presence)
        await world.cut()
        await until(lambda: len(world.presence()) >= 2)

        assert world.presence()[:2] == [PRESENT, ABSENT]

    play(make_world, story)


def test_what_was_under_way_is_not_sent_again_by_itself(make_world: MakeWorld) -> None:
    async def story(world: World) -> None:
        await world.connected()
        await world.silence()
        for number in range(5):
            assert world.transport.publish(UpKind.TELEMETRY, b"%d" % number)
        await world.cut()
        await until(lambda: world.count(Disconnected))
        await world.heal()
        await until(lambda: world.count(Connected) == 2)
        assert world.transport.publish(UpKind.TELEMETRY, b"new")
        await until(world.telemetry)

        assert world.telemetry() == [b"new"]

    play(make_world, story)


def test_a_hub_that_comes_later_is_found(make_world: MakeWorld) -> None:
    async def story(world: World) -> None:
        await world.cut()
        world.run()
        await asyncio.sleep(0.05)
        before = list(world.events)
        await world.heal()
        await until(lambda: world.count(Connected))

        assert before == []

    play(make_world, story)


def test_cancelling_says_goodbye(make_world: MakeWorld) -> None:
    async def story(world: World) -> None:
        await world.connected()
        await until(world.presence)
        world.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await world.task
        await until(lambda: len(world.presence()) >= 2)

        assert world.presence()[:2] == [PRESENT, ABSENT]
        assert not world.transport.publish(UpKind.TELEMETRY, b"late")

    play(make_world, story)


def test_a_defect_in_the_agent_ends_the_run_and_is_not_swallowed(make_world: MakeWorld) -> None:
    async def story(world: World) -> None:
        def defect(_: TransportEvent) -> None:
            raise ZeroDivisionError

        world.task = asyncio.create_task(world.transport.run(defect))
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(world.task, LIMIT_SECONDS)
        world.run()

    play(make_world, story)


# ---- over a real broker -------------------------------------------------------------------------


@pytest.mark.broker
def test_a_peer_that_falls_silent_is_noticed(lab: PahoLab) -> None:
    async def story(world: World) -> None:
        await world.connected()
        await world.silence()
        await until(lambda: world.count(Disconnected))

        assert "silent" in str(world.events[-1])

    play(lab.world, story, keepalive_seconds=1)


@pytest.mark.broker
def test_an_idle_connection_stays(lab: PahoLab) -> None:
    async def story(world: World) -> None:
        await world.connected()
        await asyncio.sleep(2.5)  # more than the broker's patience, 1.5 times the keepalive

        assert world.transport.publish(UpKind.TELEMETRY, b"still here")
        await until(world.telemetry)
        assert [type(event) for event in world.events] == [Connected]

    play(lab.world, story, keepalive_seconds=1)


@pytest.mark.broker
def test_a_large_document_arrives_whole(lab: PahoLab) -> None:
    document = os.urandom(PACKET_LIMIT - 1000)

    async def story(world: World) -> None:
        await world.connected()
        world.send(DownKind.DESIRED, document)
        await until(lambda: world.count(Received))

        assert world.events[1:] == [Received(DownKind.DESIRED, document)]

    play(lab.world, story)


@pytest.mark.broker
def test_a_large_message_goes_out_whole(lab: PahoLab) -> None:
    message = os.urandom(PACKET_LIMIT - 1000)

    async def story(world: World) -> None:
        await world.connected()
        assert world.transport.publish(UpKind.TELEMETRY, message)
        await until(world.telemetry)

        assert world.telemetry() == [message]

    play(lab.world, story)


@pytest.mark.broker
def test_what_the_broker_would_refuse_is_not_sent(lab: PahoLab) -> None:
    async def story(world: World) -> None:
        await world.connected()
        taken = world.transport.publish(UpKind.TELEMETRY, b"x" * (PACKET_LIMIT + 1))
        assert world.transport.publish(UpKind.TELEMETRY, b"small")
        await until(world.telemetry)

        assert not taken
        assert world.telemetry() == [b"small"]

    play(lab.world, story)


@pytest.mark.broker
def test_it_speaks_mqtt_3_1_1_too(lab: PahoLab) -> None:
    async def story(world: World) -> None:
        await world.connected()
        assert world.transport.publish(UpKind.TELEMETRY, b"old")
        await until(world.telemetry)

        assert world.telemetry() == [b"old"]

    play(lab.world, story, protocol=4)


@pytest.mark.broker
def test_every_connection_asks_for_a_context_of_its_own(lab: PahoLab) -> None:
    contexts: list[ssl.SSLContext] = []

    def make_context() -> ssl.SSLContext:
        contexts.append(lab.context())
        return contexts[-1]

    async def story(world: World) -> None:
        await world.connected()
        assert isinstance(world.transport, PahoTransport)
        world.transport.reconnect()
        await until(lambda: world.count(Connected) == 2)

        assert len(contexts) == 2

    play(lab.world, story, make_context=make_context)


@pytest.mark.broker
def test_a_process_with_a_thousand_open_files_connects(lab: PahoLab) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2048)), hard))
    handles = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]

    async def scenario() -> None:
        events: list[TransportEvent] = []
        transport = lab.transport(port=lab.broker.port)
        task = asyncio.create_task(transport.run(events.append))
        await until(lambda: events)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

        assert events[0] == Connected()

    try:
        asyncio.run(scenario())
    finally:
        for handle in handles:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- what cannot work ---------------------------------------------------------------------------


class ImpatientClock:
    """Notes how long it should wait, and ends the run at the third time."""

    def __init__(self) -> None:
        self.delays: list[float] = []

    def now(self) -> Any:
        return SystemClock().now()

    def monotonic(self) -> float:
        return SystemClock().monotonic()

    async def sleep(self, seconds: float) -> None:
        self.delays.append(seconds)
        if len(self.delays) == 3:
            raise asyncio.CancelledError


LONGER = Backoff(first=30.0, ceiling=900.0)


def fail(lab: PahoLab, **options: Any) -> tuple[PahoTransport, list[float], list[TransportEvent]]:
    clock = ImpatientClock()
    events: list[TransportEvent] = []
    transport = lab.transport(clock=clock, refused_backoff=LONGER, **options)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(asyncio.wait_for(transport.run(events.append), LIMIT_SECONDS))
    return transport, clock.delays, events


def code(transport: PahoTransport) -> Code | None:
    return transport.failure and transport.failure.code


@pytest.mark.broker
def test_nobody_there_is_tried_again_with_growing_delays(lab: PahoLab) -> None:
    transport, delays, events = fail(lab, port=free_port())

    assert (code(transport), events) == (Code.BROKER_UNREACHABLE, [])
    assert 0.01 <= delays[0] <= delays[1] <= delays[2] <= 0.05


@pytest.mark.broker
def test_an_expired_certificate_waits_longer(lab: PahoLab) -> None:
    transport, delays, events = fail(
        lab,
        port=lab.broker.port,
        make_context=lambda: lab.context(valid=(-2 * DAY, -DAY)),
    )

    assert (code(transport), events) == (Code.CERTIFICATE_INVALID, [])
    assert min(delays) >= 30.0


@pytest.mark.broker
def test_a_hub_of_another_authority_waits_longer(lab: PahoLab) -> None:
    transport, delays, events = fail(
        lab, port=lab.broker.port, make_context=lambda: lab.context(trusted=make_authority())
    )

    assert (code(transport), events) == (Code.CERTIFICATE_INVALID, [])
    assert min(delays) >= 30.0


def mute_server(story: Callable[[int], Awaitable[None]]) -> None:
    """Run `story` beside a server that accepts connections and says nothing."""

    async def scenario() -> None:
        async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(-1)
            writer.close()

        server = await asyncio.start_server(hold, "127.0.0.1", 0)
        await story(server.sockets[0].getsockname()[1])
        server.close()
        await server.wait_closed()

    asyncio.run(scenario())


@pytest.mark.broker
def test_a_server_that_never_answers_is_given_up(lab: PahoLab) -> None:
    async def story(port: int) -> None:
        clock = ImpatientClock()
        transport = lab.transport(port=port, clock=clock, connect_seconds=0.1)
        with pytest.raises(asyncio.CancelledError):
            await transport.run(lambda _: None)

        assert code(transport) is Code.BROKER_UNREACHABLE

    mute_server(story)
