"""What the front does with peers that do not behave."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from hub.adapters.front.endpoint import MqttFront
from hub.adapters.front.limits import FrontLimits
from protocol.errors import Code, FleetError
from protocol.ids import DeviceId
from protocol.mqtt import (
    Connack,
    Connect,
    ConnectReturn,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Properties,
    Puback,
    Publish,
    Reason,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Version,
    Will,
    encode,
)
from protocol.topics import DownKind, UpKind, down_filter, up_topic
from tests.mqtt_lab import LIMIT_SECONDS, Pki, RawClient, Recorder

V311, V5 = Version.V311, Version.V5
QUICK = FrontLimits(drain_seconds=0.3, close_seconds=0.3)
D1, D2 = DeviceId("d1"), DeviceId("d2")
TELEMETRY = up_topic(D1, UpKind.TELEMETRY)


@dataclass(frozen=True)
class Lab:
    front: MqttFront
    recorder: Recorder
    pki: Pki

    async def join(self, name: str = "d1", version: Version = V5, **connect: object) -> RawClient:
        return await RawClient.join(self.front.port, self.pki, name, version, **connect)

    async def open(self, name: str | None = "d1", version: Version = V5) -> RawClient:
        return await RawClient.open(self.front.port, self.pki.client(name), version)


Scenario = Callable[[Lab], Awaitable[None]]


@dataclass(frozen=True)
class Arena:
    """Where a scenario is played: certificates and a kind of event loop."""

    pki: Pki
    loop_factory: Callable[[], asyncio.AbstractEventLoop]

    def run(self, main: Callable[[], Coroutine[None, None, None]]) -> None:
        with asyncio.Runner(loop_factory=self.loop_factory) as runner:
            runner.run(main())


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def arena(request: pytest.FixtureRequest, pki: Pki) -> Arena:
    return Arena(pki, request.param)


@pytest.fixture
def one_arena(pki: Pki) -> Arena:
    """For what takes seconds."""
    return Arena(pki, uvloop.new_event_loop)


def serve(arena: Arena, scenario: Scenario, **limits: float) -> None:
    async def main() -> None:
        recorder = Recorder()
        bounds = replace(QUICK, **limits)  # type: ignore[arg-type]  # numbers of both kinds
        front = MqttFront(tls=arena.pki.server, host="127.0.0.1", port=0, limits=bounds)
        await front.start(recorder)
        try:
            await scenario(Lab(front, recorder, arena.pki))
        finally:
            await front.stop()
        assert front.connected_devices() == frozenset()
        assert not front._open
        assert not front._tasks

    arena.run(main)


# ---- before CONNECT ------------------------------------------------------------------------------


def test_a_silent_connection_is_closed(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        client = await lab.open()
        assert await client.until_closed() == []

    serve(arena, scenario, connect_seconds=0.2)


def test_half_a_connect_is_closed(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        client = await lab.open()
        client.writer.write(encode(Connect("d1"), V5)[:-1])
        assert await client.until_closed() == []

    serve(arena, scenario, connect_seconds=0.2)


def test_half_a_handshake_is_closed_and_hurts_nobody(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", lab.front.port)
        writer.write(b"\x16\x03\x01")
        client = await lab.join()
        async with asyncio.timeout(LIMIT_SECONDS):
            assert await reader.read() == b""
        writer.close()
        client.close()

    serve(arena, scenario, handshake_seconds=0.3)


def test_half_open_handshakes_are_cut_when_the_front_stops(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", lab.front.port)
        await lab.recorder.until(lambda: lab.front._shaking)
        await lab.front.stop()
        async with asyncio.timeout(LIMIT_SECONDS):
            assert await reader.read() == b""
        writer.close()

    serve(arena, scenario)


async def received_by(lab: Lab, context: ssl.SSLContext) -> list[Packet]:
    try:
        client = await RawClient.open(lab.front.port, context)
        await client.send(Connect("d1"))
        return await client.until_closed()
    except (ssl.SSLError, ConnectionError):
        return []


@pytest.mark.parametrize("foreign", [False, True], ids=["no certificate", "foreign authority"])
def test_a_client_without_our_certificate_is_refused(
    arena: Arena, tmp_path: Path, *, foreign: bool
) -> None:
    async def scenario(lab: Lab) -> None:
        other = Pki(tmp_path / "other", "other root")
        context = other.client("d1", trusts=arena.pki) if foreign else arena.pki.client(None)
        assert await received_by(lab, context) == []
        assert lab.recorder.certificates == {}

    serve(arena, scenario)


def test_without_verified_certificates_nobody_gets_in(arena: Arena) -> None:
    async def main() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*arena.pki.issue("server"))
        front = MqttFront(tls=context, host="127.0.0.1", port=0)
        await front.start(Recorder())
        client = await RawClient.open(front.port, arena.pki.client("d1"))
        await client.send(Connect("d1"))
        assert await client.until_closed() == [Connack(Reason.NOT_AUTHORIZED)]
        await front.stop()

    arena.run(main)


# ---- CONNECT -------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[str, Connect, Reason, ConnectReturn]] = {
    "another client id": (
        "d1", Connect("d2"), Reason.CLIENT_IDENTIFIER_NOT_VALID, ConnectReturn.IDENTIFIER_REJECTED,
    ),
    "no client id": (
        "d1", Connect(""), Reason.CLIENT_IDENTIFIER_NOT_VALID, ConnectReturn.IDENTIFIER_REJECTED,
    ),
    "a name that is no device id": (
        "d#", Connect("d#"), Reason.NOT_AUTHORIZED, ConnectReturn.NOT_AUTHORIZED,
    ),
    "revoked": (
        "banned", Connect("banned"), Reason.NOT_AUTHORIZED, ConnectReturn.NOT_AUTHORIZED,
    ),
    "the hub cannot decide": (
        "unknown", Connect("unknown"), Reason.SERVER_UNAVAILABLE, ConnectReturn.SERVER_UNAVAILABLE,
    ),
    "a will for another device": (
        "d1", Connect("d1", will=Will(up_topic(D2, UpKind.STATUS), b"")),
        Reason.NOT_AUTHORIZED, ConnectReturn.NOT_AUTHORIZED,
    ),
    "a will with QoS 2": (
        "d1", Connect("d1", will=Will(up_topic(D1, UpKind.STATUS), b"", qos=2)),
        Reason.QOS_NOT_SUPPORTED, ConnectReturn.NOT_AUTHORIZED,
    ),
    "a retained will": (
        "d1", Connect("d1", will=Will(up_topic(D1, UpKind.STATUS), b"", retain=True)),
        Reason.RETAIN_NOT_SUPPORTED, ConnectReturn.NOT_AUTHORIZED,
    ),
}  # fmt: skip


@pytest.mark.parametrize("version", Version)
@pytest.mark.parametrize("case", REFUSED)
def test_connect_is_refused(arena: Arena, case: str, version: Version) -> None:
    name, connect, reason, code = REFUSED[case]

    async def scenario(lab: Lab) -> None:
        lab.recorder.banned.add("banned")
        lab.recorder.undecided.add("unknown")
        client = await lab.open(name, version)
        await client.send(connect)
        expected = Connack(code if version is V311 else reason)
        assert await client.until_closed() == [expected]
        assert lab.recorder.events == []

    serve(arena, scenario)


def test_enhanced_login_is_refused(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        client = await lab.open()
        await client.send(Connect("d1", properties=Properties(authentication_method="x")))
        assert await client.until_closed() == [Connack(Reason.BAD_AUTHENTICATION_METHOD)]

    serve(arena, scenario)


def test_an_old_protocol_is_told_so(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        client = await lab.open(version=V311)
        client.writer.write(bytes.fromhex("10 10 0006 4d5149736470 03 02 003c 0002 6431"))
        assert await client.until_closed() == [Connack(1)]

    serve(arena, scenario)


def test_a_decision_that_takes_too_long_is_no(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        first = await lab.join()
        await first.send(Publish(TELEMETRY, b"wait", 1, 1))
        await lab.recorder.until(lambda: lab.recorder.started)
        second = await lab.open()
        await second.send(Connect("d1"))
        assert await second.until_closed() == [Connack(Reason.SERVER_UNAVAILABLE)]
        lab.recorder.gate.set()
        third = await lab.join()
        third.close()

    serve(arena, scenario, admit_seconds=0.3)


def test_the_handler_gets_the_certificate(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        client = await lab.join()
        assert lab.recorder.certificates == {"d1": arena.pki.der("d1")}
        client.close()

    serve(arena, scenario)


def test_version_5_clients_learn_what_is_possible(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        client = await lab.open()
        await client.send(Connect("d1", keep_alive=0))
        answer = await client.receive()
        assert answer == Connack(
            properties=Properties(
                session_expiry_interval=0,
                receive_maximum=32,
                maximum_qos=1,
                retain_available=0,
                maximum_packet_size=1024 * 1024,
                subscription_identifier_available=0,
                shared_subscription_available=0,
                server_keep_alive=1200,
            )
        )
        client.close()

    serve(arena, scenario)


def test_a_session_is_never_present(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        for _ in range(2):
            client = await lab.open(version=V311)
            await client.send(Connect("d1", clean_start=False))
            assert await client.receive() == Connack(0, session_present=False)
            client.close()

    serve(arena, scenario)


def test_too_many_connections_are_closed_at_once(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        client = await lab.join()
        with pytest.raises((OSError, ssl.SSLError)):
            await lab.open("d2")
        client.close()

    serve(arena, scenario, max_connections=1)


# ---- a live session ------------------------------------------------------------------------------

FORBIDDEN: dict[str, tuple[Packet, Reason]] = {
    "another device's topic": (
        Publish(up_topic(D2, UpKind.TELEMETRY), b"", 1, 1), Reason.NOT_AUTHORIZED,
    ),
    "an own topic that goes down": (
        Publish("rimward/v1/d1/down/desired", b"", 1, 1), Reason.NOT_AUTHORIZED,
    ),
    "a kind that does not exist": (Publish("rimward/v1/d1/up/x", b""), Reason.NOT_AUTHORIZED),
    "a system topic": (Publish("$SYS/x", b""), Reason.NOT_AUTHORIZED),
    "QoS 2": (Publish(TELEMETRY, b"", 2, 1), Reason.QOS_NOT_SUPPORTED),
    "retained": (Publish(TELEMETRY, b"", retain=True), Reason.RETAIN_NOT_SUPPORTED),
    "an alias": (
        Publish(TELEMETRY, b"", properties=Properties(topic_alias=1)), Reason.TOPIC_ALIAS_INVALID,
    ),
    "too large": (Publish(TELEMETRY, b"x" * 5000), Reason.PACKET_TOO_LARGE),
    "a second CONNECT": (Connect("d1"), Reason.PROTOCOL_ERROR),
    "an answer of servers": (Suback(1, (0,)), Reason.PROTOCOL_ERROR),
}  # fmt: skip


ONLY_VERSION_5 = {"an alias", "retained"}


@pytest.mark.parametrize(
    ("case", "version"),
    [(case, v) for case in FORBIDDEN for v in Version if v is V5 or case not in ONLY_VERSION_5],
)
def test_a_forbidden_packet_ends_the_session(arena: Arena, case: str, version: Version) -> None:
    packet, reason = FORBIDDEN[case]

    async def scenario(lab: Lab) -> None:
        client = await lab.join(version=version)
        await client.send(packet)
        assert await client.until_closed() == ([Disconnect(reason)] if version is V5 else [])
        assert lab.recorder.messages == []
        await lab.recorder.until(lambda: ("disconnected", "d1") in lab.recorder.events)

    serve(arena, scenario, max_packet_bytes=4096)


def test_garbage_after_connect_ends_only_its_session(arena: Arena) -> None:
    noise = random.Random(7)  # noqa: S311 - reproducible garbage

    async def scenario(lab: Lab) -> None:
        good = await lab.join("d2")
        for _ in range(25):
            client = await lab.join()
            client.writer.write(noise.randbytes(4000))
            await client.send(Pingreq())
            client.close()
        await good.send(Pingreq())
        assert await good.receive() == Pingresp()
        good.close()

    serve(arena, scenario)


def test_garbage_instead_of_connect_is_closed(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        client = await lab.open()
        client.writer.write(b"GET / HTTP/1.1\r\n" * 500)
        assert await client.until_closed() == []

    serve(arena, scenario)


def test_subscriptions_are_answered_truthfully(arena: Arena) -> None:
    wanted = (down_filter(D1), "rimward/v1/d1/down/+", down_filter(D2), "#", "rimward/v1/+/down/#",
              "$share/g/rimward/v1/d1/down/#", TELEMETRY, "$SYS/#", "rimward/v1/d1/#")  # fmt: skip

    async def scenario(lab: Lab) -> None:
        for version, refusal in ((V5, 0x87), (V311, 0x80)):
            client = await lab.join(version=version)
            await client.send(Subscribe(9, tuple(Subscription(each, 2) for each in wanted)))
            assert await client.receive() == Suback(9, (1, 1, *[refusal] * 7))
            client.close()

    serve(arena, scenario)


def test_filters_beyond_the_limit_are_refused(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        client = await lab.join()
        await client.send(Subscribe(1, (Subscription(down_filter(D1)),) * 3))
        assert await client.receive() == Suback(1, (0, 0, Reason.QUOTA_EXCEEDED))
        client.close()

    serve(arena, scenario, max_filters=2)


def test_filters_can_be_given_back(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        client = await lab.join()
        await client.send(Unsubscribe(2, (down_filter(D1), "#")))
        assert await client.receive() == Unsuback(2, (0, 0x11))
        old = await lab.join("d2", V311)
        await old.send(Unsubscribe(2, ("#",)))
        assert await old.receive() == Unsuback(2)
        client.close()
        old.close()

    serve(arena, scenario)


def test_a_silent_client_is_closed_after_its_keep_alive(one_arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        client = await lab.join(keep_alive=1)
        assert await client.until_closed() == [Disconnect(Reason.KEEP_ALIVE_TIMEOUT)]

    serve(one_arena, scenario)


def test_signs_of_life_keep_a_session(one_arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        client = await lab.join(keep_alive=1)
        for _ in range(4):
            await client.send(Pingreq())
            assert await client.receive() == Pingresp()
            await asyncio.sleep(0.45)
        client.close()

    serve(one_arena, scenario)


def test_the_newer_connection_wins(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        first = await lab.join()
        second = await lab.join()
        assert await first.until_closed() == [Disconnect(Reason.SESSION_TAKEN_OVER)]
        await second.send(Pingreq())
        assert await second.receive() == Pingresp()
        seen = [what for what, _ in lab.recorder.events]
        assert seen == ["connected", "disconnected", "connected"]
        second.close()

    serve(arena, scenario)


def test_many_takeovers_at_once_leave_one_session(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        clients = [await lab.open() for _ in range(12)]
        for client in clients:
            await client.send(Connect("d1"))
        await lab.recorder.until(lab.front.connected_devices)
        ends = [asyncio.create_task(client.until_closed()) for client in clients]
        await lab.recorder.until(lambda: sum(end.done() for end in ends) == len(clients) - 1)
        seen = [what for what, _ in lab.recorder.events]
        assert seen == ["connected", "disconnected"] * (len(seen) // 2) + ["connected"]
        await lab.front.stop()
        await asyncio.gather(*ends)

    serve(arena, scenario)


def test_another_certificate_cannot_take_a_session_over(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        victim = await lab.join()
        attacker = await lab.open("d2")
        await attacker.send(Connect("d1"))
        await attacker.until_closed()
        await victim.send(Pingreq())
        assert await victim.receive() == Pingresp()
        victim.close()

    serve(arena, scenario)


def test_a_kick_says_why(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        client = await lab.join()
        await lab.front.kick(D1)
        assert lab.front.connected_devices() == frozenset()
        assert await client.until_closed() == [Disconnect(Reason.ADMINISTRATIVE_ACTION)]

    serve(arena, scenario)


def test_a_kick_reaches_a_client_that_is_being_admitted(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        lab.recorder.faults.add("authorize")
        client = await lab.open()
        await client.send(Connect("d1"))
        await lab.recorder.until(lambda: lab.recorder.certificates)
        await lab.front.kick(D1)
        lab.recorder.gate.set()
        assert await client.until_closed() == []
        assert lab.recorder.events == []

    serve(arena, scenario)


def test_a_client_that_leaves_while_it_is_admitted_was_never_there(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        lab.recorder.faults.add("authorize")
        client = await lab.open()
        await client.send(Connect("d1"))
        await lab.recorder.until(lambda: lab.recorder.certificates)
        client.close()
        await lab.recorder.until(lambda: not lab.front._connections)
        lab.recorder.gate.set()
        await lab.recorder.until(lambda: not lab.front._tasks)
        assert lab.recorder.events == []

    serve(arena, scenario)


def test_a_fault_while_connecting_ends_the_session_in_order(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        lab.recorder.faults.add("connected")
        client = await lab.join()
        assert await client.until_closed() == [Disconnect(Reason.UNSPECIFIED_ERROR)]
        expected = [("connected", "d1"), ("disconnected", "d1")]
        await lab.recorder.until(lambda: lab.recorder.events == expected)

    serve(arena, scenario)


def test_a_fault_while_disconnecting_does_not_lock_the_device_out(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        lab.recorder.faults.add("disconnected")
        (await lab.join()).close()
        (await lab.join()).close()

    serve(arena, scenario)


def test_a_fault_that_may_pass_is_no_refusal_of_the_device(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        lab.recorder.undecided.add("d1")
        first = await lab.open()
        await first.send(Connect("d1"))
        assert await first.until_closed() == [Connack(Reason.SERVER_UNAVAILABLE)]
        lab.recorder.undecided.clear()
        (await lab.join()).close()

    serve(arena, scenario)


def test_a_new_session_waits_for_the_messages_of_the_old_one(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        old = await lab.join()
        await old.send(Publish(TELEMETRY, b"wait", 1, 1))
        await lab.recorder.until(lambda: lab.recorder.started)
        old.close()
        new = await lab.open()
        await new.send(Connect("d1"))
        await lab.recorder.until(lambda: ("disconnected", "d1") in lab.recorder.events)
        await asyncio.sleep(0.05)
        assert lab.front.connected_devices() == frozenset()
        lab.recorder.gate.set()
        assert isinstance(await new.receive(), Connack)
        new.close()

    serve(arena, scenario)


# ---- flow ----------------------------------------------------------------------------------------


def test_acknowledges_in_order_and_only_what_is_finished(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        client = await lab.join()
        await client.send(
            Publish(TELEMETRY, b"wait", 1, 5),
            Publish(TELEMETRY, b"quick", 1, 4),
            Pingreq(),
        )
        await lab.recorder.until(lambda: lab.recorder.bodies() == [b"quick"])
        assert await client.receive() == Pingresp()
        lab.recorder.gate.set()
        assert [await client.receive(), await client.receive()] == [Puback(5), Puback(4)]
        client.close()

    serve(arena, scenario)


@pytest.mark.parametrize(("limit", "value"), [("max_inflight", 4), ("max_inflight_bytes", 16)])
def test_a_busy_hub_stops_reading(arena: Arena, limit: str, value: int) -> None:
    async def scenario(lab: Lab) -> None:
        client = await lab.join()
        await client.send(*(Publish(TELEMETRY, b"wait", 1, i) for i in range(1, 101)))
        await lab.recorder.until(lambda: len(lab.recorder.started) == 4)
        await asyncio.sleep(0.1)
        assert len(lab.recorder.started) == 4
        lab.recorder.gate.set()
        answers = [await client.receive() for _ in range(100)]
        assert answers == [Puback(i) for i in range(1, 101)]
        client.close()

    serve(arena, scenario, **{limit: value})


def test_a_client_nobody_reads_is_not_silent(one_arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        client = await lab.join(keep_alive=1)
        await client.send(*(Publish(TELEMETRY, b"wait", 1, i) for i in (1, 2)))
        await asyncio.sleep(1.8)
        lab.recorder.gate.set()
        assert [await client.receive(), await client.receive()] == [Puback(1), Puback(2)]
        client.close()

    serve(one_arena, scenario, max_inflight=1)


def test_a_busy_hub_holds_little_of_a_flood(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        client = await lab.join()
        flood = encode(Publish(TELEMETRY, b"wait" * 250, 1, 1), V5) * 8000
        client.writer.write(flood)
        await lab.recorder.until(lambda: len(lab.recorder.started) == 32)
        await asyncio.sleep(0.3)
        (connection,) = lab.front._connections
        assert connection._decoder.buffered_bytes < 1024 * 1024
        client.close()

    serve(arena, scenario)


def test_a_refused_message_is_answered_and_the_session_lives(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        for version, reason in ((V5, Reason.PAYLOAD_FORMAT_INVALID), (V311, 0)):
            client = await lab.join(version=version)
            await client.send(Publish(TELEMETRY, b"refuse", 1, 3), Pingreq())
            answers = {await client.receive(), await client.receive()}
            assert answers == {Puback(3, reason), Pingresp()}
            client.close()

    serve(arena, scenario)


def test_a_message_not_processed_is_not_acknowledged(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        client = await lab.join()
        await client.send(
            Publish(TELEMETRY, b"before", 1, 1),
            Publish(TELEMETRY, b"fail for ever", 1, 2),
            Publish(TELEMETRY, b"behind", 1, 3),
        )
        assert await client.until_closed() == [Puback(1), Disconnect(Reason.UNSPECIFIED_ERROR)]

    serve(arena, scenario)


def test_a_peer_that_takes_nothing_is_dropped(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        client = await lab.join("d1", V311)
        client.stop_reading()
        sent = 0
        while await lab.front.send(D1, DownKind.DESIRED, b"x" * 100_000):
            sent += 1
            assert sent < 2000
            await asyncio.sleep(0)
        await lab.recorder.until(lambda: ("disconnected", "d1") in lab.recorder.events)
        client.close()

    serve(arena, scenario)


def test_a_peer_that_stops_taking_is_dropped_after_a_while(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        client = await lab.join("d1", V311)
        client.stop_reading()
        # more than the kernel buffers, less than the limit
        for _ in range(64):
            await lab.front.send(D1, DownKind.DESIRED, b"x" * 250_000)
        await lab.recorder.until(lambda: ("disconnected", "d1") in lab.recorder.events)
        client.close()

    serve(arena, scenario, slow_reader_seconds=0.3, max_outgoing_bytes=64 * 1024 * 1024)


def test_a_client_that_never_acknowledges_is_dropped(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        client = await lab.join(properties=Properties(receive_maximum=2))
        results = [await lab.front.send(D1, DownKind.ACK, b"x" * 10) for _ in range(7)]
        assert results == [True] * 5 + [False] * 2
        *messages, last = await client.until_closed()
        assert len(messages) == 2
        assert last == Disconnect(Reason.QUOTA_EXCEEDED)

    serve(arena, scenario, max_outgoing_bytes=100)


def test_acknowledgements_open_the_window(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        client = await lab.join(properties=Properties(receive_maximum=1))
        for body in (b"1", b"2", b"3"):
            assert await lab.front.send(D1, DownKind.ACK, body)
        bodies = []
        for _ in range(3):
            message = await client.receive()
            assert isinstance(message, Publish)
            bodies.append(message.payload)
            await client.send(Puback(message.packet_id))
        assert bodies == [b"1", b"2", b"3"]
        client.close()

    serve(arena, scenario)


def test_a_message_larger_than_the_client_takes_is_not_sent(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        client = await lab.join(properties=Properties(maximum_packet_size=200))
        assert not await lab.front.send(D1, DownKind.DESIRED, b"x" * 200)
        assert await lab.front.send(D1, DownKind.DESIRED, b"x" * 100)
        client.close()

    serve(arena, scenario)


def test_a_flood_of_pings_does_not_starve_others(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        flooder, other = await lab.join("d1"), await lab.join("d2")
        flooder.writer.write(encode(Pingreq(), V5) * 20_000)
        await other.send(Pingreq())
        assert await other.receive() == Pingresp()
        assert [await flooder.receive() for _ in range(20_000)] == [Pingresp()] * 20_000
        flooder.close()
        other.close()

    serve(arena, scenario)


# ---- start and stop ------------------------------------------------------------------------------


def test_stop_answers_what_is_in_flight(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        client = await lab.join()
        await client.send(Publish(TELEMETRY, b"wait", 1, 1))
        await lab.recorder.until(lambda: lab.recorder.started)
        stopping = asyncio.create_task(lab.front.stop())
        await asyncio.sleep(0.05)
        lab.recorder.gate.set()
        found = await client.until_closed()
        await stopping
        assert found == [Puback(1), Disconnect(Reason.SERVER_SHUTTING_DOWN)]

    serve(arena, scenario)


def test_stop_does_not_wait_for_ever(arena: Arena) -> None:
    async def scenario(lab: Lab) -> None:
        client = await lab.join()
        await client.send(Publish(TELEMETRY, b"wait", 1, 1))
        await lab.recorder.until(lambda: lab.recorder.started)
        await lab.front.stop()
        found = await client.until_closed()
        assert not any(isinstance(packet, Puback) for packet in found)
        assert lab.recorder.events[-1] == ("disconnected", "d1")

    serve(arena, scenario)


def test_a_port_in_use_is_named(arena: Arena) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            front = MqttFront(tls=arena.pki.server, host="127.0.0.1", port=port)
            with pytest.raises(FleetError, match=str(port)) as caught:
                await front.start(Recorder())
        assert caught.value.code is Code.PORT_IN_USE
        assert caught.value.hint

    arena.run(main)


def test_a_host_that_is_not_ours_is_named(arena: Arena) -> None:
    async def main() -> None:
        front = MqttFront(tls=arena.pki.server, host="192.0.2.1", port=0)
        with pytest.raises(FleetError, match=r"192\.0\.2\.1") as caught:
            await front.start(Recorder())
        assert caught.value.code is Code.SETTINGS_INVALID

    arena.run(main)


def test_an_idle_connection_holds_no_large_buffer(pki: Pki) -> None:
    async def scenario(lab: Lab) -> None:
        client = await lab.join()
        (connection,) = lab.front._connections
        protocol = connection.transport._ssl_protocol  # type: ignore[attr-defined]  # inside asyncio
        assert len(protocol._ssl_buffer) <= 16 * 1024
        client.close()

    serve(Arena(pki, asyncio.new_event_loop), scenario)


def test_garbage_of_every_kind_never_leaves_a_fault(one_arena: Arena) -> None:
    """A fault in the front would reach the loop's exception handler."""
    noise = random.Random(11)  # noqa: S311 - reproducible garbage
    faults: list[dict[str, Any]] = []
    samples = [
        encode(packet, V5)
        for packet in (
            Connect("d1"),
            Publish(TELEMETRY, b"x" * 30, 1, 7),
            Subscribe(1, (Subscription(down_filter(D1), 1),)),
            Unsubscribe(1, ("a/b",)),
            Puback(1),
            Disconnect(Reason.DISCONNECT_WITH_WILL),
        )
    ]

    async def scenario(lab: Lab) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: faults.append(what))
        for _ in range(60):
            client = await lab.join()
            for _ in range(20):
                data = bytearray(noise.choice(samples))
                data[noise.randrange(len(data))] = noise.randrange(256)
                client.writer.write(data)
            client.writer.write(encode(Pingreq(), V5))
            await asyncio.wait({asyncio.ensure_future(client.receive())}, timeout=0.02)
            client.close()

    serve(one_arena, scenario)

    assert faults == []
