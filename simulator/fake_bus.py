"""A `DeviceBus` in one process: no sockets, the same refusals as the real ones.

Devices join with `FakeBus.join` and speak through the link it returns. The fake knows the native
topics as the real transports do, so a device that names a foreign topic is thrown out here too.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from protocol.errors import Code, DeniedError, FleetError, UnavailableError
from protocol.mqtt.filters import covers, is_shared
from protocol.topics import DownKind, UpKind, down_filter, down_topic, parse_up

if TYPE_CHECKING:
    from protocol.ids import DeviceId


class Handler(Protocol):
    """What the bus tells its owner; the hub's `BusHandler`."""

    async def authorize(self, device: DeviceId, certificate_der: bytes) -> None:
        """Return when the device may join."""
        ...

    async def connected(self, device: DeviceId) -> None:
        """Take note of a device."""
        ...

    async def disconnected(self, device: DeviceId) -> None:
        """Take note of its end."""
        ...

    async def message(self, device: DeviceId, kind: UpKind, body: bytes) -> None:
        """Process a message."""
        ...


class FakeLink:
    """The device's end; `received` holds (topic, body) of what was sent to it."""

    def __init__(self, bus: FakeBus, device: DeviceId) -> None:
        self._bus = bus
        self._turn = asyncio.Lock()
        self.device = device
        self.is_open = True
        self.received: list[tuple[str, bytes]] = []

    async def publish(self, topic: str, body: bytes) -> None:
        """Return when the hub acknowledged.

        Raises:
            ConnectionError: the link is closed, now or because of this message; the device keeps
                what it wanted to say.
        """
        if not self.is_open:
            raise ConnectionError("the link is closed")
        try:
            device, kind = parse_up(topic)
        except FleetError as error:
            await self._bus.drop(self)
            raise ConnectionError(str(error)) from error
        if device != self.device:
            await self._bus.drop(self)
            raise ConnectionError(f"{self.device!r} may not publish as {device!r}")
        async with self._turn:
            await self._deliver(kind, body)

    def subscribe(self, topic_filter: str) -> bool:
        """Return whether it is granted; own messages come in any case, foreign ones never."""
        return not is_shared(topic_filter) and covers(down_filter(self.device), topic_filter)

    async def close(self) -> None:
        """Leave."""
        await self._bus.drop(self)

    async def _deliver(self, kind: UpKind, body: bytes) -> None:
        try:
            await self._bus.handler.message(self.device, kind, body)
        except FleetError as error:
            if not error.retryable:
                return
            await self._bus.drop(self)
            raise ConnectionError("not processed") from error
        except Exception as error:
            await self._bus.drop(self)
            raise ConnectionError("not processed") from error
        if not self.is_open:
            raise ConnectionError("the link was closed before the acknowledgement")


class FakeBus:
    """`DeviceBus` without a network."""

    handler: Handler

    def __init__(self) -> None:
        self._links: dict[DeviceId, FakeLink] = {}
        self._serving = False

    async def start(self, handler: Handler) -> None:
        """Begin to accept devices."""
        self.handler = handler
        self._serving = True

    async def stop(self) -> None:
        """Close every link."""
        self._serving = False
        for link in list(self._links.values()):
            await self.drop(link)

    async def send(self, device: DeviceId, kind: DownKind, body: bytes) -> bool:
        """Hand a message to the device; False when it is not here."""
        link = self._links.get(device)
        if link is None:
            return False
        link.received.append((down_topic(device, kind), body))
        return True

    async def kick(self, device: DeviceId) -> None:
        """Close the device's link."""
        if device in self._links:
            await self.drop(self._links[device])

    def connected_devices(self) -> frozenset[DeviceId]:
        """Return the devices that joined and did not leave."""
        return frozenset(self._links)

    async def join(
        self, device: DeviceId, client_id: str, certificate_der: bytes = b""
    ) -> FakeLink:
        """Connect a device whose certificate names `device`.

        Raises:
            FleetError: what `authorize` raised; `forbidden` for another's client id;
                `hub-unreachable` while the bus is stopped.
        """
        if not self._serving:
            raise UnavailableError("the bus is stopped", code=Code.HUB_UNREACHABLE)
        if client_id != device:
            raise DeniedError(f"client id {client_id!r} is not {device!r}", code=Code.FORBIDDEN)
        await self.handler.authorize(device, certificate_der)
        if device in self._links:
            await self.drop(self._links[device])
        link = FakeLink(self, device)
        self._links[device] = link
        await self.handler.connected(device)
        return link

    async def drop(self, link: FakeLink) -> None:
        """Close a link; nothing happens when it is closed."""
        if link.is_open:
            link.is_open = False
            if self._links.get(link.device) is link:
                del self._links[link.device]
            await self.handler.disconnected(link.device)
