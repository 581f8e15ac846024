"""One MQTT connection on paho-mqtt, driven by the asyncio loop: opened once, closed once.

Hides what differs between paho 1.6.1 and 2.x, and paho's own loop, which uses select() and a
thread per client. A link is never reconnected: with it goes everything paho had in flight, so
nothing old is sent again behind the agent's back.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from agent.adapters.trust import PlainSpeakingSocket, is_certificate_alert
from agent.core.ports import Connected, Disconnected, Received, TransportEvent
from protocol import codec
from protocol.dsse import MAX_ENVELOPE_BYTES
from protocol.errors import InvalidError
from protocol.ids import DeviceId
from protocol.messages import MqttEndpoint, Status
from protocol.topics import UpKind, down_filter, parse_down, up_topic

MAX_PACKET_BYTES = MAX_ENVELOPE_BYTES + 64 * 1024
_QOS = 1
_REFUSALS = range(0x80, 0x100)
# Bad user name or password, not authorized, banned, bad authentication method; 4 and 5 are 3.1.1's.
_IDENTITY_REFUSALS = frozenset({4, 5, 0x86, 0x87, 0x8A, 0x8C})
_READS_AT_ONCE = 64
_HEADER_BYTES = 256  # more than the fixed header, topic and properties of ours ever take


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """How to connect.

    Attributes:
        device: Client id, and whose topics are used.
        endpoint: Where.
        keepalive_seconds: Longest silence of ours; a peer silent for 1.5 times that is lost.
        connect_seconds: Deadline of each step: TCP, TLS, and the answer to our subscription.
        max_in_flight: Messages the peer has not yet taken.
        protocol: 5, or 4 for MQTT 3.1.1.
    """

    device: DeviceId
    endpoint: MqttEndpoint
    keepalive_seconds: int = 30
    connect_seconds: float = 10.0
    max_in_flight: int = 20
    protocol: int = 5


def open_client(options: LinkOptions, context: ssl.SSLContext) -> paho.Client:
    """Connect a new client: TCP, TLS, and CONNECT sent. Blocks; made for a thread.

    Raises:
        OSError: It did not work; ssl.SSLError is one.
    """
    client = _new_client(options)
    context.sslsocket_class = _bounded_socket(options.connect_seconds)
    client.tls_set_context(context)
    client.max_inflight_messages_set(options.max_in_flight)
    client.max_queued_messages_set(options.max_in_flight)
    client.will_set(up_topic(options.device, UpKind.STATUS), _status(connected=False), qos=_QOS)
    if hasattr(client, "connect_timeout"):  # fixed to 5 s in 1.6.1
        client.connect_timeout = options.connect_seconds
    arguments: dict[str, Any] = {}
    if options.protocol == paho.MQTTv5:
        properties = Properties(PacketTypes.CONNECT)
        properties.MaximumPacketSize = MAX_PACKET_BYTES
        arguments = {"clean_start": True, "properties": properties}
    endpoint = options.endpoint
    words = LastWords()
    client.on_log = words.hear
    client.connect(endpoint.host, endpoint.port, options.keepalive_seconds, **arguments)
    if client.socket() is None:  # CONNECT could not be written
        raise ConnectionError(words.text or "the connection was lost at once")
    return client


class LastWords:
    """The last error paho logged: the only place where it tells why TLS failed."""

    def __init__(self) -> None:
        self.text = ""

    def hear(self, *arguments: Any) -> None:
        """Play paho's `on_log` callback."""
        if arguments[2] == paho.MQTT_LOG_ERR:
            self.text = str(arguments[3])[:200]


def _new_client(options: LinkOptions) -> paho.Client:
    arguments: dict[str, Any] = {"client_id": options.device, "protocol": options.protocol}
    if options.protocol != paho.MQTTv5:
        arguments["clean_session"] = True
    versions = getattr(paho, "CallbackAPIVersion", None)
    if versions is not None:
        arguments["callback_api_version"] = versions.VERSION2
    return paho.Client(reconnect_on_failure=False, **arguments)


def _bounded_socket(timeout_seconds: float) -> type[ssl.SSLSocket]:
    class BoundedSocket(PlainSpeakingSocket):
        """Bounds the handshake: paho 1.6.1 gives it a whole keepalive."""

        def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - the base's
            self.settimeout(timeout_seconds)
            super().do_handshake(block)

    return BoundedSocket


class Link:
    """A connection from CONNECT to its end; its events wait here until `run` takes them.

    Everything runs in the loop's thread. Callbacks of paho only note what happened: nothing of the
    agent runs inside them.
    """

    def __init__(self, client: paho.Client, options: LinkOptions) -> None:
        self.refused = False  # the peer does not accept who we are
        self.reason: str | None = None  # why it ended
        self.subscribed = False
        self.packet_limit: int | None = None  # largest packet the peer takes, in bytes
        self._client = client
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._events: deque[TransportEvent] = deque()
        self._wakeup = asyncio.Event()
        self._in_flight = 0
        self._max_in_flight = options.max_in_flight
        self._keepalive = options.keepalive_seconds
        self._heard_at = self._loop.time()
        self._writing = False
        self._words = LastWords()
        self._socket: socket.socket | None = client.socket()  # type: ignore[assignment] # never a websocket
        self._tick: asyncio.TimerHandle | None = None
        self._attach()

    # ---- towards the transport -------------------------------------------------------------------

    async def next_events(self) -> list[TransportEvent]:
        """Wait for events and take them all; empty once the link has ended."""
        while not self._events and self.reason is None:
            self._wakeup.clear()
            await self._wakeup.wait()
        events = list(self._events)
        self._events.clear()
        return events

    def publish(self, kind: UpKind, body: bytes) -> bool:
        """Send at once; False when not connected, congested, or larger than the peer takes."""
        if not self.subscribed or self.reason is not None:
            return False
        too_large = self.packet_limit and len(body) + _HEADER_BYTES > self.packet_limit
        if self._in_flight >= self._max_in_flight or too_large:
            return False
        return self._publish(kind, body)

    def close(self) -> None:
        """Say goodbye and end; nothing is waited for."""
        if self.reason is None:
            self._client.on_disconnect = None
            # Without a DISCONNECT the broker publishes the last will, which says the same.
            if self.publish(UpKind.STATUS, _status(connected=False)):
                self._drive(self._client.disconnect)
        self.end("closed by this side")

    def end(self, reason: str) -> None:
        """Drop the connection, whatever state it is in. The first reason stays."""
        if self.reason is not None:
            return
        self.reason = reason
        if self.subscribed:
            self._events.append(Disconnected(reason))
        self._detach()
        self._wakeup.set()

    # ---- the socket ------------------------------------------------------------------------------

    def _attach(self) -> None:
        client = self._client
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect
        client.on_log = self._words.hear
        client.on_socket_close = self._on_socket_close
        if self._socket is not None:
            self._loop.add_reader(self._socket, self._on_readable)
        self._look_after()

    def _detach(self) -> None:
        if self._tick is not None:
            self._tick.cancel()
        self._unregister()
        # paho closes its socket only inside its own loop; here it is ours to close.
        sock = self._client.socket()
        for name in ("connect", "subscribe", "message", "publish", "disconnect", "log"):
            setattr(self._client, f"on_{name}", None)
        self._client.on_socket_close = None
        if sock is not None:
            sock.close()

    def _unregister(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            if self._writing:
                self._loop.remove_writer(self._socket)
            self._socket, self._writing = None, False

    def _on_readable(self) -> None:
        self._heard_at = self._loop.time()
        for _ in range(_READS_AT_ONCE):
            self._drive(self._client.loop_read)
            sock = self._socket
            # Bytes that TLS has decrypted already do not wake the loop again.
            if not isinstance(sock, ssl.SSLSocket) or not sock.pending():
                break
        else:
            self._loop.call_soon(self._on_rest)
        self._after()

    def _on_rest(self) -> None:
        if self._socket is not None:
            self._on_readable()

    def _on_writable(self) -> None:
        self._drive(self._client.loop_write)
        self._after()

    def _look_after(self) -> None:
        """Every few seconds: keepalive, and whether the peer is still there."""
        if self._loop.time() - self._heard_at > 1.5 * self._keepalive:
            self.end("the peer has been silent for too long")
            return
        self._drive(self._client.loop_misc)
        if self.reason is not None:
            return
        self._tick = self._loop.call_later(self._keepalive / 10, self._look_after)
        self._after()

    def _drive(self, call: Callable[[], object]) -> None:
        try:
            call()
        except OSError as error:  # 1.6.1 lets errors of TLS through, 2.x calls on_disconnect
            self._lost(str(error))

    def _lost(self, why: str) -> None:
        self.refused = self.refused or is_certificate_alert(why)
        self.end(f"the connection was lost: {why}")

    def _after(self) -> None:
        """After every call into paho: what it could not write waits for the socket."""
        if self._socket is not None and self._writing != self._client.want_write():
            self._writing = not self._writing
            if self._writing:
                self._loop.add_writer(self._socket, self._on_writable)
            else:
                self._loop.remove_writer(self._socket)
        if self._events or self.reason is not None:
            self._wakeup.set()

    # ---- what paho calls -------------------------------------------------------------------------

    def _on_connect(self, *arguments: Any) -> None:
        _, _, _, reason, *rest = arguments
        code = _number(reason)
        if code:
            self.refused = code in _IDENTITY_REFUSALS
            self.end(f"the peer refused the connection: {reason}")
            return
        properties = rest[0] if rest else None
        self.packet_limit = getattr(properties, "MaximumPacketSize", None)
        self._max_in_flight = min(
            self._max_in_flight, getattr(properties, "ReceiveMaximum", self._max_in_flight)
        )
        self._keepalive = max(
            self._keepalive, getattr(properties, "ServerKeepAlive", self._keepalive)
        )
        self._client.subscribe(down_filter(self._options.device), qos=_QOS)

    def _on_subscribe(self, *arguments: Any) -> None:
        granted = [_number(code) for code in arguments[3]]
        if any(code in _REFUSALS for code in granted):
            self.refused = True
            self.end("the peer refused our subscription")
            return
        self.subscribed = True
        self._client.on_log = None  # it costs a formatted line per packet
        self._words.text = ""
        self._events.append(Connected())
        self._publish(UpKind.STATUS, _status(connected=True))

    def _on_message(self, *arguments: Any) -> None:
        message: paho.MQTTMessage = arguments[2]
        try:
            _, kind = parse_down(message.topic)
        except (InvalidError, UnicodeDecodeError):
            return  # of a later version, or not for us: nothing that we could act on
        self._events.append(Received(kind, bytes(message.payload)))

    def _on_publish(self, *_: Any) -> None:
        self._in_flight -= 1

    def _on_disconnect(self, *arguments: Any) -> None:
        # 2.x: client, userdata, flags, reason, properties; 1.6.1: without flags
        reason = arguments[2] if len(arguments) < 5 else arguments[3]  # noqa: PLR2004 - see above
        self._lost(self._words.text or str(reason))

    def _on_socket_close(self, *_: Any) -> None:
        self._unregister()

    def _publish(self, kind: UpKind, body: bytes) -> bool:
        topic = up_topic(self._options.device, kind)
        try:
            taken = self._client.publish(topic, body, qos=_QOS).rc == paho.MQTT_ERR_SUCCESS
        except OSError as error:
            self._lost(str(error))
            return False
        self._in_flight += taken
        self._after()
        return taken


def _status(*, connected: bool) -> bytes:
    return codec.encode(Status(connected))


def _number(code: Any) -> int:
    """Return a reason as a number: paho 2 has objects, 1.6.1 has some of both."""
    return int(getattr(code, "value", code))
