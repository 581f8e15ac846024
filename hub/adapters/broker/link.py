"""One connection to an external broker: MQTT 5 client packets, no topics of its own.

Reuses the front's connection and inbox; messages are acknowledged in order after the work on
them is done. Must not reconnect: a link that ended is thrown away.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hub.adapters.front.connection import Connection
from hub.adapters.front.inbox import Inbox, Settled
from protocol.errors import Code, UnavailableError
from protocol.mqtt import (
    Connack,
    Connect,
    Disconnect,
    MqttProtocolError,
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
    Version,
    encode,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine

    from hub.adapters.front.limits import FrontLimits

_FIRST_ID = 1
_LAST_ID = 0xFFFF
_SUBSCRIBE_ID = 0xFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkOptions:
    """What the link asks the broker for; seconds and counts."""

    client_id: str
    receive_maximum: int
    keep_alive_seconds: int
    session_expiry_seconds: int


class BrokerLink:
    """The receiver of the packets a broker sends."""

    def __init__(
        self,
        options: LinkOptions,
        limits: FrontLimits,
        work: Callable[[Publish], Coroutine[Any, Any, None]],
    ) -> None:
        loop = asyncio.get_running_loop()
        self._options = options
        self._limits = limits
        self._work = work
        self._inbox = Inbox(
            limits.max_inflight, limits.max_inflight_bytes, loop.create_task, self._settled
        )
        self._draining = False
        self._last_id = 0
        self._window = asyncio.Semaphore(1)
        self._acknowledged: dict[int, asyncio.Future[int]] = {}
        self._joined: asyncio.Future[Connack] = loop.create_future()
        self._subscribed: asyncio.Future[Suback] = loop.create_future()
        self._attached: Connection | None = None
        self._ping: asyncio.TimerHandle | None = None
        self.ended: asyncio.Future[str] = loop.create_future()

    @classmethod
    async def open(
        cls,
        address: tuple[str, int],
        tls: ssl.SSLContext,
        options: LinkOptions,
        limits: FrontLimits,
        work: Callable[[Publish], Coroutine[Any, Any, None]],
    ) -> tuple[BrokerLink, bool]:
        """Connect; return the link and whether the broker kept our session.

        Raises:
            UnavailableError: `broker-unreachable`.
        """
        link = cls(options, limits, work)
        host, port = address
        try:
            async with asyncio.timeout(limits.handshake_seconds + limits.connect_seconds):
                await asyncio.get_running_loop().create_connection(
                    lambda: Connection(limits, link._attach, Version.V5), host, port, ssl=tls
                )
                answer = await link._joined
        except (OSError, TimeoutError) as error:
            link.close()
            raise _unreachable(host, port, str(error) or type(error).__name__) from error
        if answer.reason:
            link.close()
            raise _unreachable(host, port, f"refused with {Reason(answer.reason).name}")
        return link, answer.session_present

    async def subscribe(self, topic_filter: str) -> None:
        """Subscribe with QoS 1, or raise UnavailableError (`broker-unreachable`)."""
        packet = Subscribe(_SUBSCRIBE_ID, (Subscription(topic_filter, 1, retain_handling=2),))
        self._connection.send(packet)
        try:
            async with asyncio.timeout(self._limits.connect_seconds):
                answer = await self._subscribed
        except (ConnectionError, TimeoutError) as error:
            self.close()
            raise _unreachable_filter(topic_filter, "no answer") from error
        if answer.reasons[0] > 1:
            self.close()
            raise _unreachable_filter(topic_filter, f"refused with {answer.reasons[0]:#04x}")

    async def publish(self, topic: str, payload: bytes, expiry_seconds: int) -> int:
        """Publish with QoS 1 and return the reason of the acknowledgement.

        Raises:
            ConnectionError: the link ended first.
        """
        properties = Properties(message_expiry_interval=expiry_seconds)
        async with self._window:
            if self.ended.done():
                raise ConnectionError("the link to the broker has ended")
            packet_id = self._next_id()
            future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            self._acknowledged[packet_id] = future
            self._connection.send(Publish(topic, payload, 1, packet_id, properties=properties))
            try:
                return await future
            finally:
                self._acknowledged.pop(packet_id, None)

    def drain(self) -> list[asyncio.Task[None]]:
        """Take nothing more; return the work in flight."""
        self._draining = True
        return self._inbox.tasks

    def close(self) -> None:
        """Say goodbye and close; the broker keeps the session."""
        if self._attached is not None:
            self._attached.close(encode(Disconnect(), Version.V5))

    # ---- for the connection ----------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether packets have to wait."""
        return self._draining or self._inbox.is_full

    def received(self, packet: Packet) -> None:
        """Act on a packet of the broker."""
        match packet:
            case Publish():
                self._inbox.take(packet.packet_id, len(packet.payload), self._work(packet))
            case Puback():
                waiting = self._acknowledged.get(packet.packet_id)
                if waiting is not None and not waiting.done():
                    waiting.set_result(packet.reason)
            case Pingresp():
                pass
            case Connack() if not self._joined.done():
                self._welcome(packet)
            case Suback() if not self._subscribed.done():
                self._subscribed.set_result(packet)
            case _:
                self._connection.close()

    def broken(self, error: MqttProtocolError) -> None:
        """Close: this is no broker."""
        self._connection.close(encode(Disconnect(error.reason), Version.V5))

    def timed_out(self) -> None:
        """Close: the broker is silent."""
        self._connection.close()

    def lost(self) -> None:
        """Tell everybody who waits."""
        if self._ping is not None:
            self._ping.cancel()
        gone = ConnectionError("the broker closed the connection")
        waiting: list[asyncio.Future[Any]] = [self._joined, self._subscribed]
        waiting += self._acknowledged.values()
        for future in waiting:
            if not future.done():
                future.set_exception(gone)
                # somebody may or may not be waiting; both are fine
                future.exception()
        if not self.ended.done():
            self.ended.set_result(str(gone))

    # ---- inside ----------------------------------------------------------------------------------

    @property
    def _connection(self) -> Connection:
        assert self._attached is not None  # noqa: S101 - nobody has a link that was not opened
        return self._attached

    def _attach(self, connection: Connection) -> BrokerLink:
        self._attached = connection
        options = self._options
        properties = Properties(
            receive_maximum=options.receive_maximum,
            session_expiry_interval=options.session_expiry_seconds,
            maximum_packet_size=self._limits.max_packet_bytes,
        )
        connection.send(
            Connect(
                options.client_id,
                clean_start=False,
                keep_alive=options.keep_alive_seconds,
                properties=properties,
            )
        )
        return self

    def _welcome(self, packet: Connack) -> None:
        granted = packet.properties
        keep_alive = granted.server_keep_alive or self._options.keep_alive_seconds
        window = min(granted.receive_maximum or _LAST_ID, self._options.receive_maximum)
        self._window = asyncio.Semaphore(window)
        self._connection.watch(keep_alive)
        self._schedule_ping(keep_alive / 2)
        self._joined.set_result(packet)

    def _schedule_ping(self, seconds: float) -> None:
        if not self._connection.is_closing:
            loop = asyncio.get_running_loop()
            self._ping = loop.call_later(seconds, self._send_ping, seconds)

    def _send_ping(self, seconds: float) -> None:
        self._connection.send(Pingreq())
        self._schedule_ping(seconds)

    def _settled(self, settled: Settled) -> None:
        # what the work does about failures is its own business: here, done is done
        if settled.packet_id:
            self._connection.send(Puback(settled.packet_id))
        self._connection.resume()

    def _next_id(self) -> int:
        packet_id = self._last_id
        while True:
            packet_id = packet_id % (_LAST_ID - 1) + _FIRST_ID
            if packet_id not in self._acknowledged:
                self._last_id = packet_id
                return packet_id


def _unreachable(host: str, port: int, why: str) -> UnavailableError:
    return UnavailableError(
        f"the MQTT broker '{host}:{port}' cannot be used: {why}",
        code=Code.BROKER_UNREACHABLE,
        hint="check its address, its certificate and that it trusts the hub's certificate",
    )


def _unreachable_filter(topic_filter: str, why: str) -> UnavailableError:
    return UnavailableError(
        f"the MQTT broker gives no access to {topic_filter!r}: {why}",
        code=Code.BROKER_UNREACHABLE,
        hint="install the access file that `hub.adapters.broker.config` renders",
    )
