"""What every `DeviceBus` does: the fake, the hub's own front, and a real Mosquitto."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pytest
import uvloop
from requirements_gate import require

from hub.adapters.broker.bus import BrokerAdmin, BrokerBus, BrokerSettings
from hub.adapters.broker.config import (
    SALT_BYTES,
    MosquittoConfig,
    render_access,
    render_mosquitto,
    render_password,
)
from hub.adapters.clock import SystemClock
from hub.adapters.front.endpoint import MqttFront
from hub.adapters.front.limits import FrontLimits
from hub.core.ports import DeviceBus
from protocol.errors import FleetError
from protocol.ids import DeviceId
from protocol.mqtt import Version
from protocol.topics import DownKind, UpKind, down_topic, up_topic
from simulator.fake_bus import FakeBus, FakeLink
from tests.mqtt_lab import HUB_NAME, PahoDevice, Pki, Recorder, free_port, until

D1, D2 = DeviceId("d1"), DeviceId("d2")
LIMITS = FrontLimits(drain_seconds=1.0, close_seconds=0.5)
PASSWORD = b"only for tests"


class Device(Protocol):
    """The device side, whatever the transport."""

    @property
    def received(self) -> list[tuple[str, bytes]]: ...

    async def join(self) -> bool: ...
    async def say(self, kind: UpKind, body: bytes) -> None: ...
    async def try_publish(self, topic: str, body: bytes) -> None: ...
    async def try_subscribe(self, topic_filter: str) -> None: ...
    async def leave(self) -> None: ...
    async def vanish(self) -> None: ...


class FakeDevice:
    """A device of the fake bus: keeps a message until it is acknowledged, as paho does."""

    def __init__(self, bus: FakeBus, name: DeviceId) -> None:
        self._bus, self._name = bus, name
        self._link: FakeLink | None = None

    @property
    def received(self) -> list[tuple[str, bytes]]:
        return [] if self._link is None else self._link.received

    async def join(self) -> bool:
        try:
            self._link = await self._bus.join(self._name, self._name)
        except FleetError:
            return False
        await self.say(UpKind.STATUS, b'{"connected":true}')
        return True

    async def say(self, kind: UpKind, body: bytes) -> None:
        assert self._link is not None
        try:
            await self._link.publish(up_topic(self._name, kind), body)
        except ConnectionError:
            await self.join()
            await self._link.publish(up_topic(self._name, kind), body)

    async def try_publish(self, topic: str, body: bytes) -> None:
        assert self._link is not None
        with suppress(ConnectionError):
            await self._link.publish(topic, body)

    async def try_subscribe(self, topic_filter: str) -> None:
        assert self._link is not None
        self._link.subscribe(topic_filter)

    async def leave(self) -> None:
        if self._link is not None:
            await self._link.close()

    vanish = leave


@dataclass(frozen=True)
class Bench:
    """A started bus, its handler, and a way to make devices for it."""

    bus: DeviceBus
    recorder: Recorder
    device: Callable[[DeviceId], Device]


Story = Callable[[Bench], Awaitable[None]]
Run = Callable[[Story], None]


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


def play(
    bus: DeviceBus,
    story: Story,
    device: Callable[[DeviceId], Device],
) -> Callable[[], Coroutine[Any, Any, None]]:
    async def main() -> None:
        recorder = Recorder()
        made: list[Device] = []

        def make(name: DeviceId) -> Device:
            made.append(device(name))
            return made[-1]

        await bus.start(recorder)
        try:
            await story(Bench(bus, recorder, make))
        finally:
            for each in made:
                await each.leave()
            await bus.stop()

    return main


def front_runner(pki: Pki, version: Version, loop_factory: Callable[[], Any]) -> Run:
    def run(story: Story) -> None:
        async def main() -> None:
            front = MqttFront(tls=pki.server, host="127.0.0.1", port=0, limits=LIMITS)
            await play(
                front, story, lambda name: PahoDevice(name, front.port, pki.client(name), version)
            )()

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main())

    return run


def fake_runner() -> Run:
    def run(story: Story) -> None:
        bus = FakeBus()
        asyncio.run(play(bus, story, lambda name: FakeDevice(bus, name))())

    return run


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory, pki: Pki) -> Iterator[BrokerSettings]:
    binary = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
    require("broker", binary is not None, "mosquitto is not on PATH")
    assert binary is not None
    # a short path: the name of a Unix socket has at most 107 bytes
    folder = tmp_path_factory.mktemp("m")
    port = free_port()
    certificate, key = pki.issue("server")
    config = MosquittoConfig(
        host="127.0.0.1", port=port, certificate=certificate, key=key, client_roots=pki.roots,
        access_file=folder / "acl", data_folder=folder, admin_socket=folder / "s",
        admin_password_file=folder / "passwords",
    )  # fmt: skip
    (folder / "conf").write_text(render_mosquitto(config) + user_line())
    (folder / "acl").write_text(render_access(HUB_NAME))
    (folder / "passwords").write_text(render_password("hub", PASSWORD, bytes(SALT_BYTES)))
    for name in ("acl", "passwords", "conf"):
        (folder / name).chmod(0o600)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([binary, "-c", folder / "conf"], stdout=log, stderr=log)
        try:
            asyncio.run(until((folder / "s").exists))
            admin = BrokerAdmin(socket=folder / "s", username="hub", password=PASSWORD)
            yield BrokerSettings(
                host="localhost", port=port, client_id=HUB_NAME, admin=admin,
                session_expiry_seconds=0,
            )  # fmt: skip
        finally:
            process.terminate()
            process.wait(10)


def user_line() -> str:
    """Keep the test's user: started as root, Mosquitto would become one that cannot read here."""
    return "user root\n" if os.geteuid() == 0 else ""


def broker_runner(pki: Pki, settings: BrokerSettings) -> Run:
    def run(story: Story) -> None:
        async def main() -> None:
            bus = broker_bus(pki, settings)
            tls = pki.client
            await play(
                bus, story, lambda name: PahoDevice(name, settings.port, tls(name), Version.V5)
            )()

        asyncio.run(main())

    return run


def broker_bus(pki: Pki, settings: BrokerSettings) -> BrokerBus:
    return BrokerBus(
        tls=pki.client(settings.client_id),
        settings=settings,
        clock=SystemClock(),
        random=random.Random(1),  # noqa: S311 - spreads reconnects
    )


DIRECT = ["fake", "front-5-uvloop", "front-311-asyncio"]


def runner_of(name: str, request: pytest.FixtureRequest, pki: Pki) -> Run:
    match name:
        case "fake":
            return fake_runner()
        case "front-5-uvloop":
            return front_runner(pki, Version.V5, uvloop.new_event_loop)
        case "front-311-asyncio":
            return front_runner(pki, Version.V311, asyncio.new_event_loop)
        case _:
            return broker_runner(pki, request.getfixturevalue("mosquitto"))


@pytest.fixture(params=[*DIRECT, pytest.param("broker", marks=pytest.mark.broker)])
def run(request: pytest.FixtureRequest, pki: Pki) -> Run:
    return runner_of(request.param, request, pki)


@pytest.fixture(params=DIRECT)
def direct(request: pytest.FixtureRequest, pki: Pki) -> Run:
    """The buses that see the connection itself."""
    return runner_of(request.param, request, pki)


def test_a_device_that_joins_is_connected(run: Run) -> None:
    async def story(bench: Bench) -> None:
        assert await bench.device(D1).join()
        await bench.recorder.until(lambda: bench.bus.connected_devices() == {D1})
        await bench.recorder.until(lambda: bench.recorder.events == [("connected", "d1")])

    run(story)


def test_a_message_reaches_the_handler(run: Run) -> None:
    async def story(bench: Bench) -> None:
        device = bench.device(D1)
        await device.join()
        await device.say(UpKind.REPORTED, b"\x00body")
        await bench.recorder.until(lambda: bench.recorder.messages)
        assert bench.recorder.messages == [("d1", UpKind.REPORTED, b"\x00body")]

    run(story)


def test_messages_of_a_device_arrive_in_order(run: Run) -> None:
    async def story(bench: Bench) -> None:
        device = bench.device(D1)
        await device.join()
        bodies = [str(number).encode() for number in range(100)]
        for body in bodies:
            await device.say(UpKind.TELEMETRY, body)
        await bench.recorder.until(lambda: len(bench.recorder.messages) == 100)
        assert bench.recorder.bodies() == bodies

    run(story)


def test_a_large_message_passes_both_ways(run: Run) -> None:
    async def story(bench: Bench) -> None:
        device, body = bench.device(D1), bytes(range(256)) * 2000
        await device.join()
        await device.say(UpKind.TELEMETRY, body)
        await bench.recorder.until(lambda: bench.recorder.bodies() == [body])
        assert await bench.bus.send(D1, DownKind.DESIRED, body)
        await bench.recorder.until(lambda: device.received)
        assert device.received == [(down_topic(D1, DownKind.DESIRED), body)]

    run(story)


def test_what_is_sent_reaches_the_device_in_order(run: Run) -> None:
    async def story(bench: Bench) -> None:
        device = bench.device(D1)
        await device.join()
        await bench.recorder.until(lambda: bench.bus.connected_devices() == {D1})
        for number in range(20):
            assert await bench.bus.send(D1, DownKind.ACK, b"%d" % number)
        await bench.recorder.until(lambda: len(device.received) == 20)
        topic = down_topic(D1, DownKind.ACK)
        assert device.received == [(topic, b"%d" % number) for number in range(20)]

    run(story)


def test_sending_to_an_absent_device_says_so(run: Run) -> None:
    async def story(bench: Bench) -> None:
        assert not await bench.bus.send(DeviceId("nobody"), DownKind.DESIRED, b"x")

    run(story)


def test_a_device_that_left_is_not_connected(run: Run) -> None:
    async def story(bench: Bench) -> None:
        device = bench.device(D1)
        await device.join()
        await bench.recorder.until(lambda: bench.bus.connected_devices() == {D1})
        await device.leave()
        expected = [("connected", "d1"), ("disconnected", "d1")]
        await bench.recorder.until(lambda: bench.recorder.events == expected)
        assert bench.bus.connected_devices() == frozenset()
        assert not await bench.bus.send(D1, DownKind.DESIRED, b"x")

    run(story)


def test_a_device_that_vanished_is_not_connected(run: Run) -> None:
    async def story(bench: Bench) -> None:
        device = bench.device(D1)
        await device.join()
        await bench.recorder.until(lambda: bench.bus.connected_devices() == {D1})
        await device.vanish()
        await bench.recorder.until(lambda: ("disconnected", "d1") in bench.recorder.events)
        assert bench.bus.connected_devices() == frozenset()

    run(story)


def test_a_refused_message_costs_nothing_else(run: Run) -> None:
    async def story(bench: Bench) -> None:
        device = bench.device(D1)
        await device.join()
        await device.say(UpKind.TELEMETRY, b"refuse")
        await device.say(UpKind.TELEMETRY, b"next")
        await bench.recorder.until(lambda: bench.recorder.bodies() == [b"next"])
        assert bench.recorder.events == [("connected", "d1")]

    run(story)


def test_a_message_that_was_not_processed_comes_again(run: Run) -> None:
    async def story(bench: Bench) -> None:
        device = bench.device(D1)
        await device.join()
        await device.say(UpKind.TELEMETRY, b"fail")
        await bench.recorder.until(lambda: bench.recorder.bodies() == [b"fail"])
        assert bench.recorder.started == [b"fail", b"fail"]

    run(story)


@pytest.mark.parametrize("topic", [up_topic(D2, UpKind.TELEMETRY), "rimward/v1/d1/down/desired"])
def test_a_device_speaks_for_nobody_else(run: Run, topic: str) -> None:
    async def story(bench: Bench) -> None:
        device, witness = bench.device(D1), bench.device(D2)
        await device.join()
        await witness.join()
        await device.try_publish(topic, b"forged")
        await witness.say(UpKind.TELEMETRY, b"real")
        await bench.recorder.until(lambda: bench.recorder.messages)
        assert bench.recorder.messages == [("d2", UpKind.TELEMETRY, b"real")]

    run(story)


@pytest.mark.parametrize(
    "topic_filter", ["#", "rimward/v1/+/down/#", "rimward/v1/d2/#", "$share/g/rimward/#"]
)
def test_a_device_hears_nothing_of_others(run: Run, topic_filter: str) -> None:
    async def story(bench: Bench) -> None:
        spy, victim = bench.device(D1), bench.device(D2)
        await spy.join()
        await victim.join()
        await spy.try_subscribe(topic_filter)
        await victim.say(UpKind.TELEMETRY, b"secret")
        await bench.recorder.until(lambda: bench.bus.connected_devices() >= {D1, D2})
        assert await bench.bus.send(D2, DownKind.DESIRED, b"secret")
        await bench.recorder.until(lambda: victim.received)
        assert await bench.bus.send(D1, DownKind.DESIRED, b"own")
        await bench.recorder.until(lambda: spy.received)
        assert {body for _, body in spy.received} == {b"own"}

    run(story)


def test_a_kicked_device_is_gone_at_once(run: Run) -> None:
    async def story(bench: Bench) -> None:
        device = bench.device(D1)
        await device.join()
        await bench.recorder.until(lambda: bench.bus.connected_devices() == {D1})
        bench.recorder.banned.add("d1")
        await bench.bus.kick(D1)
        assert D1 not in bench.bus.connected_devices()
        await bench.recorder.until(lambda: ("disconnected", "d1") in bench.recorder.events)

    run(story)


def test_kicking_nobody_is_no_error(run: Run) -> None:
    async def story(bench: Bench) -> None:
        await bench.bus.kick(DeviceId("nobody"))
        assert bench.recorder.events == []

    run(story)


def test_the_newer_connection_of_a_device_wins(run: Run) -> None:
    async def story(bench: Bench) -> None:
        older, newer = bench.device(D1), bench.device(D1)
        await older.join()
        await bench.recorder.until(lambda: bench.bus.connected_devices() == {D1})
        await older.vanish()
        await newer.join()
        await newer.say(UpKind.TELEMETRY, b"from the newer")
        await bench.recorder.until(lambda: bench.recorder.bodies() == [b"from the newer"])
        assert await bench.bus.send(D1, DownKind.DESIRED, b"x")
        await bench.recorder.until(lambda: newer.received)
        assert older.received == []

    run(story)


def test_a_device_the_hub_refuses_is_not_connected(direct: Run) -> None:
    async def story(bench: Bench) -> None:
        bench.recorder.banned.add("d1")
        assert not await bench.device(D1).join()
        assert bench.recorder.events == []

    direct(story)


def test_acknowledged_means_processed(direct: Run) -> None:
    async def story(bench: Bench) -> None:
        device = bench.device(D1)
        await device.join()
        saying = asyncio.ensure_future(device.say(UpKind.TELEMETRY, b"wait"))
        await bench.recorder.until(lambda: bench.recorder.started)
        await asyncio.sleep(0.05)
        assert not saying.done()
        bench.recorder.gate.set()
        await saying

    direct(story)


# ---- what only a broker has ----------------------------------------------------------------------


@pytest.mark.broker
def test_the_broker_keeps_messages_while_the_hub_is_away(
    pki: Pki, mosquitto: BrokerSettings
) -> None:
    settings = replace(mosquitto, session_expiry_seconds=600)

    async def main() -> None:
        first, second = Recorder(), Recorder()
        bus = broker_bus(pki, settings)
        await bus.start(first)
        device = PahoDevice("d1", settings.port, pki.client("d1"), Version.V5)
        await device.join()
        await bus.stop()
        await device.say(UpKind.TELEMETRY, b"while away")
        bus = broker_bus(pki, settings)
        await bus.start(second)
        await second.until(lambda: second.bodies() == [b"while away"])
        assert second.events == [("connected", "d1")]
        await device.leave()
        await second.until(lambda: ("disconnected", "d1") in second.events)
        await bus.stop()
        # take the kept session away from the tests that follow
        last = broker_bus(pki, mosquitto)
        await last.start(Recorder())
        await last.stop()

    asyncio.run(main())


@pytest.mark.broker
def test_a_message_nobody_can_process_is_given_up(pki: Pki, mosquitto: BrokerSettings) -> None:
    settings = replace(mosquitto, max_attempts=2)

    async def story(bench: Bench) -> None:
        device = bench.device(D1)
        await device.join()
        await device.say(UpKind.TELEMETRY, b"fail for ever")
        await device.say(UpKind.TELEMETRY, b"next")
        await bench.recorder.until(lambda: bench.recorder.bodies() == [b"next"])

    broker_runner(pki, settings)(story)


@pytest.mark.broker
def test_the_link_comes_back(pki: Pki, mosquitto: BrokerSettings) -> None:
    async def main() -> None:
        recorder, bus = Recorder(), broker_bus(pki, mosquitto)
        await bus.start(recorder)
        assert bus._link is not None
        first = bus._link
        assert mosquitto.admin is not None
        first._connection.abort()
        assert not await bus.send(D1, DownKind.ACK, b"nobody carries this")
        await recorder.until(lambda: bus._link not in {None, first})
        device = PahoDevice("d1", mosquitto.port, pki.client("d1"), Version.V5)
        await device.join()
        await device.say(UpKind.TELEMETRY, b"again")
        await recorder.until(lambda: recorder.bodies() == [b"again"])
        await device.leave()
        await bus.stop()

    asyncio.run(main())


@pytest.mark.broker
def test_without_an_admin_listener_a_kick_changes_nothing(
    pki: Pki, mosquitto: BrokerSettings
) -> None:
    async def story(bench: Bench) -> None:
        device = bench.device(D1)
        await device.join()
        await bench.recorder.until(lambda: bench.bus.connected_devices() == {D1})
        await bench.bus.kick(D1)
        assert bench.bus.connected_devices() == {D1}

    broker_runner(pki, replace(mosquitto, admin=None))(story)


def test_a_broker_that_does_not_answer_is_named(pki: Pki) -> None:
    async def main() -> None:
        port = free_port()
        bus = broker_bus(pki, BrokerSettings(host="localhost", port=port))
        with pytest.raises(FleetError, match=str(port)):
            await bus.start(Recorder())

    asyncio.run(main())


def test_the_access_file_names_each_devices_own_topics_only() -> None:
    assert render_access("the.hub") == (
        "user the.hub\n"
        "topic readwrite rimward/v1/#\n"
        "\n"
        "pattern write rimward/v1/%u/up/#\n"
        "pattern read rimward/v1/%u/down/#\n"
    )


def test_the_configuration_demands_certificates(tmp_path: Path) -> None:
    here = tmp_path
    text = render_mosquitto(
        MosquittoConfig(
            host="0.0.0.0", port=8883, certificate=here / "c", key=here / "k",
            client_roots=here / "r", access_file=here / "a", data_folder=here / "d",
            revocation_list=here / "crl",
        )
    )  # fmt: skip
    lines = text.splitlines()
    for wanted in (
        "listener 8883 0.0.0.0",
        "require_certificate true",
        "use_identity_as_username true",
        "use_username_as_clientid true",
        "allow_anonymous false",
        f"crlfile {here / 'crl'}",
    ):
        assert wanted in lines
    assert "password_file" not in text
