"""What connected devices say: who may speak, bad messages, reports out of order, answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hub_lab import Lab, csr, der, make_lab
from structlog.testing import capture_logs

from hub.adapters.pki import DiskAuthority
from hub.core.device import DeviceState
from protocol import codec
from protocol.errors import FleetError
from protocol.ids import DeviceId
from protocol.messages import (
    Ack,
    DesiredGet,
    Reported,
    ReportedAck,
    Status,
    Telemetry,
    TelemetryRecord,
)
from protocol.topics import DownKind, UpKind, down_topic, up_topic
from simulator.fake_bus import FakeLink

DEVICE = DeviceId("press-7")


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = make_lab(tmp_path)
    lab.register()
    return lab


def told(lab: Lab, story: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await lab.bus.start(lab.sessions)
        ingest = asyncio.create_task(lab.ingest.run())
        try:
            await story()
        finally:
            ingest.cancel()
            await asyncio.wait([ingest])
            await lab.bus.stop()

    asyncio.run(main())


async def join(lab: Lab, device: str = DEVICE) -> FakeLink:
    enrolled = await asyncio.to_thread(lab.enroll, device)
    return await lab.bus.join(DeviceId(device), device, der(enrolled.certificate))


async def say(link: FakeLink, kind: UpKind, message: msgspec.Struct | bytes) -> None:
    body = message if isinstance(message, bytes) else codec.encode(message)
    await link.publish(up_topic(link.device, kind), body)


def answers(link: FakeLink, kind: DownKind) -> list[bytes]:
    return [body for topic, body in link.received if topic == down_topic(link.device, kind)]


async def refused(lab: Lab, certificate: bytes, device: str = DEVICE) -> str:
    with pytest.raises(FleetError) as caught:
        await lab.sessions.authorize(DeviceId(device), certificate)
    return caught.value.code


def test_a_trusted_device_connects_and_is_seen(lab: Lab) -> None:
    async def story() -> None:
        with capture_logs() as logs:
            link = await join(lab)
            assert lab.services.devices.get(DEVICE).connected
            await link.close()
        assert not lab.services.devices.get(DEVICE).connected
        assert [e["event"] for e in logs[-2:]] == ["device.connected", "device.disconnected"]

    told(lab, story)


def test_foreign_certificates_are_refused(lab: Lab, tmp_path: Path) -> None:
    lab.enroll(DEVICE)
    foreign = DiskAuthority(tmp_path / "foreign", lab.clock)
    others = [
        b"rubbish",
        der(foreign.issue(csr(), DEVICE)),
        der(lab.authority.issue(csr(), DeviceId("other"))),
        der((tmp_path / "keys" / "issuer.pem").read_text()),
    ]

    async def story() -> None:
        for certificate in others:
            assert await refused(lab, certificate) == "certificate-invalid"

    asyncio.run(story())


def test_unknown_and_retired_devices_are_refused(lab: Lab) -> None:
    stranger = der(lab.authority.issue(csr(), DeviceId("stranger")))
    mine = der(lab.enroll(DEVICE).certificate)

    async def story() -> None:
        assert await refused(lab, stranger, "stranger") == "certificate-invalid"
        await lab.sessions.authorize(DEVICE, mine)
        await asyncio.to_thread(lab.services.devices.retire, DEVICE)
        lab.sessions.forget(DEVICE)
        assert await refused(lab, mine) == "certificate-invalid"

    asyncio.run(story())


def test_a_revocation_during_the_check_is_not_forgotten(lab: Lab) -> None:
    mine = der(lab.enroll(DEVICE).certificate)
    find = lab.sessions._find

    def find_and_retire(device: DeviceId) -> Any:
        found = find(device)
        assert found is not None
        with lab.store.begin() as work:
            work.devices.put(replace(found, state=DeviceState.RETIRED))
            work.commit()
        lab.sessions.forget(device)
        return found

    lab.sessions._find = find_and_retire  # type: ignore[method-assign]  # the race, made certain

    async def story() -> None:
        await lab.sessions.authorize(DEVICE, mine)
        lab.sessions._find = find  # type: ignore[method-assign]
        assert await refused(lab, mine) == "certificate-invalid"

    asyncio.run(story())


def test_a_retired_device_is_not_heard_any_more(lab: Lab) -> None:
    async def story() -> None:
        link = await join(lab)
        await asyncio.to_thread(lab.services.devices.retire, DEVICE)
        lab.sessions.forget(DEVICE)
        await say(link, UpKind.REPORTED, Reported(1, {"a": 1}))
        assert lab.services.devices.get(DEVICE).reported == {}
        assert link.received == []

    told(lab, story)


def test_telemetry_is_stored_then_acknowledged(lab: Lab) -> None:
    async def story() -> None:
        link = await join(lab)
        records = [TelemetryRecord(n, "m", "out", 0, b"{}") for n in (1, 2)]
        await say(link, UpKind.TELEMETRY, Telemetry("e", records))
        assert answers(link, DownKind.ACK) == [codec.encode(Ack("e", [(1, 2)]))]
        assert lab.services.telemetry.counts()[0] == 2

    told(lab, story)


@pytest.mark.parametrize("body", [b"", b"rubbish", b"{}", b"[" * 100_000, b'{"epoch":"e"}'])
def test_telemetry_nobody_can_read_is_kept_apart_and_dropped(lab: Lab, body: bytes) -> None:
    async def story() -> None:
        link = await join(lab)
        await say(link, UpKind.TELEMETRY, body)
        assert link.received == []
        with lab.store.begin(write=False) as work:
            assert [row.body for row in work.telemetry.quarantined(DEVICE)] == [body]

    told(lab, story)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (UpKind.REPORTED, b"rubbish"),
        (UpKind.REPORTED, b'{"revision":1,"reported":{"a.b":1}}'),
        (UpKind.REPORTED, b'{"revision":0,"reported":{}}'),
        (UpKind.REPORTED, b'{"revision":1,"reported":{"a":"' + b"x" * 600_000 + b'"}}'),
        (UpKind.DESIRED_GET, b"{}"),
        (UpKind.STATUS, b'{"connected":"yes"}'),
    ],
)
def test_bad_messages_change_nothing_and_the_link_stays(
    lab: Lab, kind: UpKind, body: bytes
) -> None:
    async def story() -> None:
        link = await join(lab)
        await say(link, kind, body)
        assert link.is_open
        assert link.received == []
        assert lab.services.devices.get(DEVICE).reported == {}

    told(lab, story)


def test_reports_out_of_order_leave_the_newest(lab: Lab) -> None:
    async def story() -> None:
        link = await join(lab)
        for revision in (1, 3, 2, 3):
            await say(link, UpKind.REPORTED, Reported(revision, {"n": revision}))
        device = lab.services.devices.get(DEVICE)
        assert (device.reported, device.reported_revision) == ({"n": 3}, 3)
        acks = [codec.decode(body, ReportedAck) for body in answers(link, DownKind.REPORTED_ACK)]
        assert [ack.revision for ack in acks] == [1, 3, 3, 3]

    told(lab, story)


def test_a_report_whose_consequence_failed_counts_when_it_is_repeated(lab: Lab) -> None:
    async def story() -> None:
        link = await join(lab)
        await asyncio.to_thread(lambda: lab.deploy("v1", lab.image()))
        done = {"lastDesiredVersion": 1, "lastDesiredStatus": {"code": 200}}
        with lab.store.begin() as work:  # the hub stored the report, then lost its power
            device = work.devices.get(DEVICE)
            assert device is not None
            work.devices.put(replace(device, reported=done, reported_revision=1))
            work.commit()
        assert lab.states("v1") == {DEVICE: "dispatched"}
        await say(link, UpKind.REPORTED, Reported(1, done))
        assert lab.states("v1") == {DEVICE: "succeeded"}

    told(lab, story)


def test_a_device_that_asks_gets_what_it_has_not(lab: Lab) -> None:
    async def story() -> None:
        link = await join(lab)
        await say(link, UpKind.DESIRED_GET, DesiredGet(0, 0))
        assert link.received == []
        await asyncio.to_thread(lambda: lab.deploy("v1", lab.image()))
        await say(link, UpKind.DESIRED_GET, DesiredGet(1, 1))
        assert link.received == []
        await say(link, UpKind.DESIRED_GET, DesiredGet(0, 0))
        state = lab.services.deployments.desired(DEVICE)
        assert state is not None
        assert answers(link, DownKind.DESIRED) == [state.envelope]
        await lab.sessions.push_desired(DEVICE)
        assert len(answers(link, DownKind.DESIRED)) == 2

    told(lab, story)


def test_a_device_that_was_not_enlisted_is_when_it_asks(lab: Lab) -> None:
    async def story() -> None:
        await asyncio.to_thread(lambda: lab.deploy("v1", lab.image()))
        object.__setattr__(lab.services.devices, "changed", lambda _device: None)
        link = await join(lab)
        assert lab.states("v1") == {}
        await say(link, UpKind.DESIRED_GET, DesiredGet(0, 0))
        assert lab.states("v1") == {DEVICE: "dispatched"}
        assert len(answers(link, DownKind.DESIRED)) == 1

    told(lab, story)


def test_presence_can_be_told(lab: Lab) -> None:
    async def story() -> None:
        link = await join(lab)
        await say(link, UpKind.STATUS, Status(connected=False))
        assert not lab.services.devices.get(DEVICE).connected
        await say(link, UpKind.STATUS, Status(connected=True))
        assert lab.services.devices.get(DEVICE).connected

    told(lab, story)


def test_a_busy_database_makes_the_device_come_back(lab: Lab) -> None:
    lab.enroll(DEVICE)

    async def story() -> None:
        body = codec.encode(Reported(1, {}))
        with lab.store.begin(), pytest.raises(FleetError) as caught:
            await lab.sessions.message(DEVICE, UpKind.REPORTED, body)
        assert caught.value.retryable

    asyncio.run(story())
