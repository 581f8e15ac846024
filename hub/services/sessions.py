"""The conversation with connected devices: the bus's handler. Knows no topics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from hub.core.deployment import DesiredState
from hub.core.device import Device, check_issued
from hub.core.ports import Authority, Clock, DeviceBus, Store
from hub.services.deployments import DeploymentService
from hub.services.telemetry import TelemetryIngest, TelemetryService
from protocol import codec
from protocol.errors import Code, DeniedError, InvalidError
from protocol.ids import DeviceId
from protocol.messages import DesiredGet, Reported, ReportedAck, Status, Telemetry
from protocol.topics import DownKind, UpKind
from protocol.twin import check_patch

MAX_REPORTED_BYTES = 512 * 1024
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Conversation:
    """What the sessions need of the hub."""

    store: Store
    clock: Clock
    authority: Authority
    deployments: DeploymentService
    telemetry: TelemetryService
    ingest: TelemetryIngest


class Sessions:
    """Implements BusHandler: who may connect, and what each message does."""

    def __init__(self, hub: Conversation, bus: DeviceBus) -> None:
        self._hub = hub
        self._bus = bus
        self._trusted: dict[DeviceId, datetime] = {}  # and when it enrolled
        self._forgotten = 0
        self._handlers: dict[UpKind, Callable[[DeviceId, bytes], Awaitable[None]]] = {
            UpKind.TELEMETRY: self._telemetry,
            UpKind.REPORTED: self._reported,
            UpKind.DESIRED_GET: self._desired_get,
            UpKind.STATUS: self._status,
        }

    async def authorize(self, device: DeviceId, certificate_der: bytes) -> None:
        """Return when `certificate_der` is in force and belongs to a trusted `device`."""
        owner = await asyncio.to_thread(self._hub.authority.identify, certificate_der)
        if owner != device:
            raise DeniedError(
                f"the certificate is {owner!r}'s, not {device!r}'s",
                code=Code.CERTIFICATE_INVALID,
                hint="connect with the client id that the certificate names",
            )
        check_issued(
            device, self._hub.authority.issued_at(certificate_der), await self._check(device)
        )

    async def _check(self, device: DeviceId) -> datetime:
        """Return when the device enrolled, or raise; remembered until `forget`."""
        if (enrolled := self._trusted.get(device)) is not None:
            return enrolled
        forgotten = self._forgotten
        found = await asyncio.to_thread(self._find, device)
        if found is None:
            raise DeniedError(
                f"device {device!r} is not known",
                code=Code.CERTIFICATE_INVALID,
                hint="enrol it: `rimward device invite`",
            )
        found.check_trusted()
        if forgotten == self._forgotten:  # else what was read may be older than a revocation
            self._trusted[device] = found.enrolled_at
        return found.enrolled_at

    def _find(self, device: DeviceId) -> Device | None:
        with self._hub.store.begin(write=False) as work:
            return work.devices.get(device)

    def forget(self, device: DeviceId) -> None:
        """Drop what is remembered of a device: its trust may have changed."""
        self._forgotten += 1
        self._trusted.pop(device, None)

    async def connected(self, device: DeviceId) -> None:
        """Record presence."""
        await asyncio.to_thread(self._presence, device, connected=True)

    async def disconnected(self, device: DeviceId) -> None:
        """Record absence."""
        await asyncio.to_thread(self._presence, device, connected=False)

    def _presence(self, device: DeviceId, *, connected: bool) -> None:
        with self._hub.store.begin(write=False) as work:
            found = work.devices.get(device)
        if found is None or found.connected is connected:
            return  # a bus may say it twice: by the connection, and by the device's own word
        with self._hub.store.begin() as work:
            work.devices.set_connected(device, connected=connected, at=self._hub.clock.now())
            work.commit()
        log.info("device.connected" if connected else "device.disconnected", device=device)

    async def message(self, device: DeviceId, kind: UpKind, body: bytes) -> None:
        """Process one message; returns after the commit."""
        await self._check(device)
        await self._handlers[kind](device, body)

    async def _telemetry(self, device: DeviceId, body: bytes) -> None:
        try:
            batch = codec.decode(body, Telemetry)
        except InvalidError as error:
            await asyncio.to_thread(self._hub.telemetry.quarantine, device, str(error), body)
            raise
        ack = await self._hub.ingest.add(device, batch)
        await self._bus.send(device, DownKind.ACK, codec.encode(ack))

    async def _reported(self, device: DeviceId, body: bytes) -> None:
        report = codec.decode(body, Reported, limit=MAX_REPORTED_BYTES)
        # The keys below `modules` are module names; `$`-keys cannot stand in a report.
        check_patch(report.reported, what="reported properties")
        revision = await asyncio.to_thread(self._store_report, device, report)
        ack = codec.encode(ReportedAck(revision))
        await self._bus.send(device, DownKind.REPORTED_ACK, ack)

    def _store_report(self, device: DeviceId, report: Reported) -> int:
        with self._hub.store.begin() as work:
            found = work.devices.get(device)
            if found is None:
                return 0
            if found.reported_revision < report.revision:
                found = replace(
                    found,
                    reported=report.reported,
                    reported_revision=report.revision,
                    last_seen=self._hub.clock.now(),
                )
                work.devices.put(found)
                work.commit()
        # Also for a repeated report: what follows from it may have failed the first time.
        self._hub.deployments.device_reported(found)
        return found.reported_revision

    async def _desired_get(self, device: DeviceId, body: bytes) -> None:
        request = codec.decode(body, DesiredGet)
        state = await asyncio.to_thread(self._desired, device)
        held = (request.epoch, request.have)
        if state is not None and (state.epoch, state.version) != held:
            await self._bus.send(device, DownKind.DESIRED, state.envelope)

    def _desired(self, device: DeviceId) -> DesiredState | None:
        state = self._hub.deployments.desired(device)
        if state is not None:
            return state
        # Enlisting it may have failed when it enrolled.
        self._hub.deployments.device_changed(device)
        return self._hub.deployments.desired(device)

    async def _status(self, device: DeviceId, body: bytes) -> None:
        status = codec.decode(body, Status)
        await (self.connected(device) if status.connected else self.disconnected(device))

    async def push_desired(self, device: DeviceId) -> None:
        """Send a device its newest desired state, if it is connected."""
        state = await asyncio.to_thread(self._hub.deployments.desired, device)
        if state is not None:
            await self._bus.send(device, DownKind.DESIRED, state.envelope)
