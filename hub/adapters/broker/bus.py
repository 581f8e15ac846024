"""`DeviceBus` over an external MQTT 5 broker, in the native dialect.

The hub is one client that hears all devices. Presence is what devices say about themselves
(their last will included), so it is late where the front's is exact; a broker's
acknowledgement means nothing to the hub, and the hub's own is sent by the services above.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from hub.adapters.broker.kick import BrokerAdmin, take_over
from hub.adapters.broker.link import BrokerLink, LinkOptions
from hub.adapters.broker.presence import Presence
from hub.adapters.front.limits import FrontLimits
from protocol import codec
from protocol.errors import FleetError
from protocol.messages import Status
from protocol.mqtt import Publish, Reason
from protocol.topics import DownKind, UpKind, all_up_filter, down_topic, parse_up

if TYPE_CHECKING:
    import ssl
    from random import Random

    from hub.core.ports import BusHandler, Clock
    from protocol.ids import DeviceId

log = structlog.get_logger()

_MIB = 1024 * 1024
_FIRST_DELAY_SECONDS = 0.5
_LAST_DELAY_SECONDS = 30.0
_MAX_DOUBLINGS = 8
_STATUS_BYTES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """Where the broker is and what is asked of it.

    Attributes:
        client_id: The hub's, also the common name of its certificate. Not a valid device id, so
            that no device can have it.
        receive_maximum: Messages handled at a time.
        session_expiry_seconds: How long the broker keeps messages while the hub is away.
        message_expiry_seconds: How long the broker keeps a message for a device that is away.
        acknowledge_seconds: How long the broker may take to acknowledge.
        max_attempts: Attempts on a message the hub cannot process; its device sends it again.
        admin: A second listener on which the hub may take any client id, to end sessions.
    """

    host: str
    port: int = 8883
    client_id: str = "rimward.hub"
    receive_maximum: int = 1_000
    keep_alive_seconds: int = 30
    session_expiry_seconds: int = 86_400
    message_expiry_seconds: int = 60
    acknowledge_seconds: float = 10.0
    max_attempts: int = 5
    admin: BrokerAdmin | None = None

    @property
    def limits(self) -> FrontLimits:
        """The bounds of the connection."""
        return FrontLimits(
            max_inflight=self.receive_maximum,
            max_inflight_bytes=64 * _MIB,
            max_outgoing_bytes=64 * _MIB,
        )


class BrokerBus:
    """`DeviceBus` as one client of a broker; reconnects for ever once it was started."""

    def __init__(
        self, *, tls: ssl.SSLContext, settings: BrokerSettings, clock: Clock, random: Random
    ) -> None:
        """Prepare; `tls` carries the hub's client certificate, `random` spreads reconnects."""
        self._tls = tls
        self._settings = settings
        self._clock = clock
        self._random = random
        self._link: BrokerLink | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._handler: BusHandler
        self._presence: Presence
        self._is_stopping = False

    # ---- the port --------------------------------------------------------------------------------

    async def start(self, handler: BusHandler) -> None:
        """Connect and subscribe, or raise UnavailableError (`broker-unreachable`)."""
        self._handler = handler
        self._presence = Presence(handler)
        link = await self._connect()
        self._keeper = asyncio.get_running_loop().create_task(self._keep(link))
        log.info("mqtt.broker_joined", host=self._settings.host, port=self._settings.port)

    async def stop(self) -> None:
        """Take nothing more, finish what is in flight, leave; the broker keeps the rest."""
        if self._keeper is None or self._is_stopping:
            return
        self._is_stopping = True
        self._keeper.cancel()
        await asyncio.wait({self._keeper})
        link = self._link
        if link is not None and not link.ended.done():
            in_flight = link.drain()
            await _settle(in_flight, self._settings.limits.drain_seconds)
            link.close()
            await asyncio.wait({link.ended}, timeout=self._settings.limits.close_seconds * 2)
        for device in self._presence.devices:
            await self._leave(device)
        log.info("mqtt.broker_left")

    async def send(self, device: DeviceId, kind: DownKind, body: bytes) -> bool:
        """Publish to the device; False when the broker has nobody to give it to."""
        link = self._link
        if link is None:
            return False
        try:
            async with asyncio.timeout(self._settings.acknowledge_seconds):
                reason = await link.publish(
                    down_topic(device, kind), body, self._settings.message_expiry_seconds
                )
        except (ConnectionError, TimeoutError):
            return False
        return reason == Reason.SUCCESS

    async def kick(self, device: DeviceId) -> None:
        """End the device's session by taking its client id on the admin listener.

        Without an admin listener nothing happens but a line in the log: the broker's own revocation
        list has to end the session then.
        """
        admin = self._settings.admin
        if admin is None:
            log.warning("mqtt.kick_unavailable", device=device)
            return
        try:
            async with asyncio.timeout(self._settings.acknowledge_seconds):
                await take_over(admin, device)
        except (OSError, TimeoutError) as error:
            log.error("mqtt.kick_failed", device=device, error=str(error) or type(error).__name__)  # noqa: TRY400 - the traceback says nothing
            return
        await self._leave(device)

    def connected_devices(self) -> frozenset[DeviceId]:
        """Return the devices heard of and not said goodbye."""
        return self._presence.devices

    # ---- the link --------------------------------------------------------------------------------

    async def _connect(self) -> BrokerLink:
        settings = self._settings
        options = LinkOptions(
            client_id=settings.client_id,
            receive_maximum=settings.receive_maximum,
            keep_alive_seconds=settings.keep_alive_seconds,
            session_expiry_seconds=settings.session_expiry_seconds,
        )
        link, session_present = await BrokerLink.open(
            (settings.host, settings.port), self._tls, options, settings.limits, self._take
        )
        await link.subscribe(all_up_filter())
        self._link = link
        if not session_present:
            # goodbyes may have been lost with the session: believe in nobody until heard of
            for device in self._presence.devices:
                await self._leave(device)
        return link

    async def _keep(self, link: BrokerLink) -> None:
        """Replace the link whenever it ends."""
        while True:
            await asyncio.wait({link.ended})
            self._link = None
            log.warning("mqtt.broker_lost", why=link.ended.result())
            link = await self._reconnect()
            log.info("mqtt.broker_joined", host=self._settings.host, port=self._settings.port)

    async def _reconnect(self) -> BrokerLink:
        attempt = 0
        while True:
            await self._clock.sleep(self._delay(attempt))
            attempt += 1
            try:
                return await self._connect()
            except FleetError as error:
                log.warning("mqtt.broker_unreachable", attempt=attempt, error=str(error))

    def _delay(self, attempt: int) -> float:
        doublings = min(attempt, _MAX_DOUBLINGS)
        ceiling = min(_LAST_DELAY_SECONDS, _FIRST_DELAY_SECONDS * 2.0**doublings)
        return ceiling * (0.5 + self._random.random() / 2)

    # ---- messages --------------------------------------------------------------------------------

    async def _take(self, packet: Publish) -> None:
        """Process one message; it is acknowledged when this returns."""
        try:
            device, kind = parse_up(packet.topic)
        except FleetError as error:
            log.warning("mqtt.topic_unknown", error=str(error))
            return
        if packet.retain:
            # nothing of ours is retained; an old presence must not come back to life
            log.warning("mqtt.retained_ignored", device=device, kind=kind)
            return
        for attempt in range(self._settings.max_attempts):
            try:
                await self._process(device, kind, packet.payload)
            except FleetError as error:
                if not error.retryable:
                    log.warning("mqtt.message_refused", device=device, error=str(error))
                    return
                log.warning("mqtt.message_failed", device=device, error=str(error))
            except Exception:  # a fault of the hub must not end the bus for every device
                log.exception("mqtt.message_failed", device=device)
            else:
                return
            await self._clock.sleep(self._delay(attempt))
        # the device holds on to it until the hub's own acknowledgement
        log.error("mqtt.message_given_up", device=device, kind=kind)

    async def _process(self, device: DeviceId, kind: UpKind, body: bytes) -> None:
        is_goodbye = kind is UpKind.STATUS and not _says_connected(body)
        if not is_goodbye:
            await self._presence.arrive(device)
        await self._handler.message(device, kind, body)
        if is_goodbye:
            await self._presence.leave(device)

    async def _leave(self, device: DeviceId) -> None:
        with contextlib.suppress(FleetError):
            await self._presence.leave(device)


def _says_connected(body: bytes) -> bool:
    return codec.decode(body, Status, limit=_STATUS_BYTES).connected


async def _settle(tasks: list[asyncio.Task[None]], limit: float) -> None:
    if tasks:
        _, pending = await asyncio.wait(tasks, timeout=limit)
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending)


__all__ = ["BrokerAdmin", "BrokerBus", "BrokerSettings"]
