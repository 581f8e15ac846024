"""One client of the front from CONNECT to its end: admission, packets, acknowledgements.

Knows packets and the bus handler. Must not know topics (the translator does) or sockets (the
connection does). The handler sees `authorize`, `connected`, messages, `disconnected` begin in
this order, and for one device never two sessions at once: the next begins when everything of the
one before has ended.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol

import structlog

from hub.adapters.front.connect import accept, choose_translator, refuse
from hub.adapters.front.dialect import ConnectRefusedError
from hub.adapters.front.inbox import Inbox, Settled
from hub.adapters.front.outbox import Outbox
from hub.adapters.front.subscribe import give_back, grant
from protocol.errors import Code, FleetError
from protocol.mqtt import (
    Connect,
    Disconnect,
    MqttProtocolError,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Reason,
    Subscribe,
    Unsubscribe,
    Version,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from typing import Any

    from hub.adapters.front.connection import Connection
    from hub.adapters.front.dialect import Dialect, Peer, Translator
    from hub.adapters.front.limits import FrontLimits
    from hub.core.ports import BusHandler
    from protocol.ids import DeviceId
    from protocol.topics import DownKind

log = structlog.get_logger()

_PINGRESP = Pingresp()
_REFUSALS = {
    Code.FORBIDDEN: Reason.NOT_AUTHORIZED,
    Code.TOO_LARGE: Reason.PAYLOAD_FORMAT_INVALID,
    Code.MESSAGE_INVALID: Reason.PAYLOAD_FORMAT_INVALID,
}


class Sessions(Protocol):
    """What a session needs from the front that owns it."""

    handler: BusHandler
    dialects: Sequence[Dialect]
    limits: FrontLimits
    is_stopping: bool

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run work that the front waits for when it stops."""
        ...

    def admitting(self, session: Session) -> None:
        """Note a session that is being decided about."""
        ...

    def admitted(self, session: Session) -> Session | None:
        """Make it the session of its device and return the one it replaces."""
        ...

    def ended(self, session: Session) -> None:
        """Forget a session that was being decided about or was admitted."""
        ...

    def gone(self, connection: Connection) -> None:
        """Forget a connection that is closed."""
        ...


class _State(Enum):
    WAITING = auto()
    ADMITTING = auto()
    LIVE = auto()
    CLOSED = auto()


class Session:
    """The receiver of one connection's packets."""

    __slots__ = (
        "_admission",
        "_connection",
        "_connects",
        "_draining",
        "_front",
        "_inbox",
        "_max_packet_bytes",
        "_older",
        "_outbox",
        "_peer",
        "_ready",
        "_state",
        "_translator",
        "departure",
    )
    _inbox: Inbox
    _outbox: Outbox
    _translator: Translator

    def __init__(self, front: Sessions, connection: Connection, peer: Peer | None) -> None:
        self._front = front
        self._connection = connection
        self._peer = peer
        self._state = _State.WAITING
        self._admission: asyncio.Task[None] | None = None
        self._older: Session | None = None
        self._connects = False
        self._ready = False
        self._draining = False
        self._max_packet_bytes = 0
        self.departure: asyncio.Task[None] | None = None

    # ---- for the front ---------------------------------------------------------------------------

    @property
    def device(self) -> DeviceId:
        """The device; only once the session was announced to the front."""
        return self._translator.device

    @property
    def is_live(self) -> bool:
        """Whether the client was admitted and is connected."""
        return self._state is _State.LIVE

    def drain(self) -> list[asyncio.Task[None]]:
        """Take no further packet; return the messages in flight."""
        self._draining = True
        return self._inbox.tasks if self.is_live else []

    def send(self, kind: DownKind, body: bytes) -> bool:
        """Send a message; False when the client is gone, does not read or cannot take it."""
        if not self.is_live:
            return False
        topic, payload = self._translator.outbound(kind, body)
        if self._max_packet_bytes and len(payload) + len(topic) + 16 > self._max_packet_bytes:
            log.warning("mqtt.message_too_large", device=self.device, bytes=len(payload))
            return False
        if not self._outbox.put(topic, payload):
            log.warning("mqtt.slow_reader_dropped", device=self.device)
            self.close(Reason.QUOTA_EXCEEDED)
            return False
        return not self._connection.is_closing

    def close(self, reason: Reason) -> None:
        """End the session at once; version 5 clients are told why."""
        farewell = b""
        if self.is_live and self._version is Version.V5:
            farewell = encode(Disconnect(reason), Version.V5)
        self._end()
        self._connection.close(farewell)

    @property
    def _version(self) -> Version:
        return self._connection.version or Version.V311

    @property
    def _name(self) -> str | None:
        return self._peer.common_name if self._peer else None

    # ---- for the connection ----------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether packets have to wait."""
        if self._state is _State.LIVE:
            return not self._ready or self._draining or self._inbox.is_full
        return self._state is _State.ADMITTING

    def received(self, packet: Packet) -> None:
        """Act on a packet."""
        match packet:
            case Publish() if self.is_live:
                self._publish(packet)
            case Connect() if self._state is _State.WAITING:
                self._begin(packet)
            case Puback() if self.is_live:
                self._outbox.acknowledge(packet.packet_id)
            case Pingreq() if self.is_live:
                self._connection.send(_PINGRESP)
            case Subscribe() if self.is_live:
                self._subscribe(packet)
            case Unsubscribe() if self.is_live:
                self._connection.send(give_back(packet, self._translator, self._version))
            case Disconnect():
                self._end()
                self._connection.close()
            case _:
                log.warning("mqtt.packet_unexpected", packet=type(packet).__name__)
                self.close(Reason.PROTOCOL_ERROR)

    def broken(self, error: MqttProtocolError) -> None:
        """Close: the peer does not speak MQTT."""
        log.warning("mqtt.protocol_broken", peer=self._name, error=str(error))
        if error.reason is not Reason.UNSUPPORTED_PROTOCOL_VERSION:
            self.close(error.reason)
        elif self.is_live:
            self.close(Reason.PROTOCOL_ERROR)
        else:
            self._end()
            self._connection.close(encode(refuse(error.reason, Version.V311), Version.V311))

    def timed_out(self) -> None:
        """Close: the peer is silent."""
        self.close(Reason.KEEP_ALIVE_TIMEOUT)

    def lost(self) -> None:
        """Clean up: the connection is gone."""
        self._end()
        self._front.gone(self._connection)

    # ---- admission -------------------------------------------------------------------------------

    def _begin(self, connect: Connect) -> None:
        self._state = _State.ADMITTING
        self._connection.watch(0)
        try:
            self._translator = choose_translator(connect, self._peer, self._front.dialects)
        except ConnectRefusedError as error:
            self._refuse(error.reason, str(error))
            return
        self._front.admitting(self)
        self._admission = self._front.spawn(self._admit(connect))

    async def _admit(self, connect: Connect) -> None:
        try:
            async with asyncio.timeout(self._front.limits.admit_seconds):
                await self._authorize()
                await self._replace()
        except ConnectRefusedError as error:
            self._refuse(error.reason, str(error))
            return
        except TimeoutError:
            self._refuse(Reason.SERVER_UNAVAILABLE, "no decision in time")
            return
        if self._state is not _State.ADMITTING:
            return
        self._welcome(connect)
        self._connects = True
        try:
            await self._front.handler.connected(self.device)
        except Exception:  # a fault of the hub must end this session, not the front
            log.exception("mqtt.connected_failed", device=self.device)
            self.close(Reason.UNSPECIFIED_ERROR)
            return
        self._ready = True
        self._connection.resume()

    async def _authorize(self) -> None:
        if self._front.is_stopping:
            raise ConnectRefusedError("stopping", Reason.SERVER_UNAVAILABLE)
        certificate = b"" if self._peer is None else self._peer.certificate_der
        try:
            await self._front.handler.authorize(self.device, certificate)
        except FleetError as error:
            reason = Reason.SERVER_UNAVAILABLE if error.retryable else Reason.NOT_AUTHORIZED
            raise ConnectRefusedError(str(error), reason) from error
        except Exception as error:
            log.exception("mqtt.authorize_failed", device=self.device)
            raise ConnectRefusedError("no decision", Reason.SERVER_UNAVAILABLE) from error
        if self._peer is not None:
            self._peer = replace(self._peer, certificate_der=b"")

    async def _replace(self) -> None:
        """Take the device's place; wait until the session that had it has left the handler."""
        if self._state is not _State.ADMITTING:
            return
        self._older = self._front.admitted(self)
        if self._older is not None:
            self._older.close(Reason.SESSION_TAKEN_OVER)
            if self._older.departure is not None:
                await asyncio.wait({self._older.departure})

    def _welcome(self, connect: Connect) -> None:
        limits, wanted = self._front.limits, connect.properties
        self._older = None
        self._inbox = Inbox(
            limits.max_inflight, limits.max_inflight_bytes, self._front.spawn, self._settled
        )
        window = min(limits.max_unacknowledged, wanted.receive_maximum or limits.max_unacknowledged)
        self._outbox = Outbox(window, limits.max_outgoing_bytes, self._connection.send)
        self._max_packet_bytes = wanted.maximum_packet_size or 0
        self._state = _State.LIVE
        answer, keep_alive = accept(connect, self._version, limits)
        self._connection.send(answer)
        self._connection.watch(keep_alive)

    def _refuse(self, reason: Reason, why: str) -> None:
        if self._state is not _State.ADMITTING:
            return
        log.warning("mqtt.connect_refused", peer=self._name, reason=reason.name, why=why)
        self._end()
        self._connection.close(encode(refuse(reason, self._version), self._version))

    # ---- the end ---------------------------------------------------------------------------------

    def _end(self) -> None:
        was, self._state = self._state, _State.CLOSED
        if was in {_State.ADMITTING, _State.LIVE} and self._admission is not None:
            self.departure = self._front.spawn(self._depart(self._admission))

    async def _depart(self, admission: asyncio.Task[None]) -> None:
        if not admission.done():
            await asyncio.wait({admission})
        if self._connects:
            try:
                await self._front.handler.disconnected(self.device)
            except Exception:  # the next session of the device must not wait for ever
                log.exception("mqtt.disconnected_failed", device=self.device)
            tasks = self._inbox.tasks
            if tasks:
                await asyncio.wait(tasks)
        if self._older is not None and self._older.departure is not None:
            await asyncio.wait({self._older.departure})
        self._front.ended(self)

    # ---- packets of a live session ---------------------------------------------------------------

    def _publish(self, packet: Publish) -> None:
        refusal = self._cannot_take(packet)
        if refusal is not None:
            self.close(refusal)
            return
        try:
            kind, body = self._translator.inbound(packet.topic, packet.payload)
        except FleetError as error:
            log.warning("mqtt.publish_forbidden", device=self.device, error=str(error))
            self.close(Reason.NOT_AUTHORIZED)
            return
        work = self._front.handler.message(self.device, kind, body)
        self._inbox.take(packet.packet_id, len(packet.payload), work)

    def _cannot_take(self, packet: Publish) -> Reason | None:
        if packet.qos > 1:
            return Reason.QOS_NOT_SUPPORTED
        if packet.properties.topic_alias is not None:
            return Reason.TOPIC_ALIAS_INVALID
        if packet.retain and self._version is Version.V5:
            return Reason.RETAIN_NOT_SUPPORTED
        return None

    def _settled(self, settled: Settled) -> None:
        error = settled.error
        if settled.is_lost:
            # without an acknowledgement the device keeps the message and sends it again
            log.error("mqtt.message_failed", device=self.device, exc_info=error)
            self.close(Reason.UNSPECIFIED_ERROR)
            return
        reason = Reason.SUCCESS
        if isinstance(error, FleetError):
            log.warning(
                "mqtt.message_refused", device=self.device, code=error.code, error=str(error)
            )
            if self._version is Version.V5:
                reason = _REFUSALS.get(error.code, Reason.IMPLEMENTATION_SPECIFIC_ERROR)
        if settled.packet_id:
            self._connection.send(Puback(settled.packet_id, reason))
        self._connection.resume()

    def _subscribe(self, packet: Subscribe) -> None:
        answer = grant(packet, self._translator, self._version, self._front.limits.max_filters)
        refused = [
            each.topic_filter[:200]
            for each, reason in zip(packet.subscriptions, answer.reasons, strict=True)
            if reason >= Reason.UNSPECIFIED_ERROR
        ]
        if refused:
            log.warning("mqtt.subscribe_refused", device=self.device, filters=refused[:5])
        self._connection.send(answer)
