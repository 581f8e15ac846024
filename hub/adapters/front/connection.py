"""One TLS connection with an MQTT peer: bytes to packets, packets to bytes, and every clock on it.

Stops reading while its session has no room, closes silent and slow peers. Must not know what a
packet means.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, cast

from protocol.mqtt import Decoder, MqttProtocolError, Packet, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from hub.adapters.front.limits import FrontLimits
    from protocol.mqtt import Version

# packets handled before other connections get their turn
_TURN = 64
_PIECE_BYTES = 64 * 1024
_KEEP_ALIVE_FACTOR = 1.5


class PacketReceiver(Protocol):
    """What a connection delivers to."""

    @property
    def is_full(self) -> bool:
        """Whether packets have to wait; `Connection.resume` tells when no longer."""
        ...

    def received(self, packet: Packet) -> None:
        """Take the next packet."""
        ...

    def broken(self, error: MqttProtocolError) -> None:
        """Take note that the peer does not speak MQTT; no packet follows."""
        ...

    def timed_out(self) -> None:
        """Take note that nothing, or no CONNECT, was heard for too long."""
        ...

    def lost(self) -> None:
        """Take note that the connection is closed."""
        ...


class Connection(asyncio.Protocol):
    """The asyncio end of a connection; its session drives it."""

    __slots__ = (
        "_close_timer",
        "_decoder",
        "_heard_at",
        "_is_paused",
        "_is_scheduled",
        "_keep_alive",
        "_limits",
        "_loop",
        "_make_receiver",
        "_outgoing",
        "_outgoing_bytes",
        "_receiver",
        "_slow_timer",
        "_timer",
        "is_closing",
        "is_made",
        "transport",
    )
    _receiver: PacketReceiver
    transport: asyncio.Transport

    def __init__(
        self,
        limits: FrontLimits,
        make_receiver: Callable[[Connection], PacketReceiver],
        version: Version | None = None,
    ) -> None:
        """Speak `version`, or what the peer's CONNECT names when there is none."""
        self._limits = limits
        self._make_receiver = make_receiver
        self._loop = asyncio.get_running_loop()
        self._decoder = Decoder(version, max_packet_bytes=limits.max_packet_bytes)
        self._outgoing: list[bytes] = []
        self._outgoing_bytes = 0
        self._is_paused = False
        self._is_scheduled = False
        self._heard_at = 0.0
        self._keep_alive = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._slow_timer: asyncio.TimerHandle | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        self.is_closing = False
        self.is_made = False

    @property
    def version(self) -> Version | None:
        """The version the peer's CONNECT named."""
        return self._decoder.version

    # ---- called by the session -------------------------------------------------------------------

    def send(self, packet: Packet) -> None:
        """Send a packet; those of one turn of the loop leave in one write."""
        version = self._decoder.version
        if version is None or self.is_closing:
            return
        data = encode(packet, version)
        self._outgoing.append(data)
        self._outgoing_bytes += len(data)
        if self._outgoing_bytes > self._limits.max_outgoing_bytes:
            self.abort()
        elif len(self._outgoing) == 1:
            self._loop.call_soon(self._flush)

    def resume(self) -> None:
        """Go on with packets that waited while the receiver was full."""
        if self._is_paused and not self._is_scheduled:
            self._dispatch()

    def watch(self, keep_alive_seconds: int) -> None:
        """Stop waiting for CONNECT or its answer; expect signs of life from now on (0: none)."""
        self._cancel_timer()
        self._keep_alive = keep_alive_seconds * _KEEP_ALIVE_FACTOR
        if self._keep_alive and not self.is_closing:
            self._timer = self._loop.call_later(self._keep_alive, self._check_life)

    def close(self, farewell: bytes = b"") -> None:
        """Send what waits and `farewell`, take nothing more, and close; idempotent."""
        if self.is_closing:
            return
        self._flush()
        if self._is_blocked:
            self.abort()
            return
        self.is_closing = True
        self._cancel_timer()
        if farewell:
            self.transport.write(farewell)
        self.transport.close()
        self._close_timer = self._loop.call_later(self._limits.close_seconds, self.abort)

    def abort(self) -> None:
        """Close without sending anything more."""
        self.is_closing = True
        self._cancel_timer()
        self.transport.abort()

    # ---- called by asyncio -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: CONNECT, or its answer, has to come soon."""
        # uvloop's transports are streams too, but no subclasses of asyncio's
        self.transport = cast("asyncio.Transport", transport)
        self.is_made = True
        self.transport.set_write_buffer_limits(high=_PIECE_BYTES)
        self._heard_at = self._loop.time()
        self._receiver = self._make_receiver(self)
        if not self.is_closing:
            self._timer = self._loop.call_later(self._limits.connect_seconds, self._time_out)

    def data_received(self, data: bytes) -> None:
        """Take bytes; they wait while the receiver is full."""
        if self.is_closing:
            return
        self._heard_at = self._loop.time()
        self._decoder.feed(data)
        if not self._is_paused:
            self._dispatch()

    def pause_writing(self) -> None:
        """The peer takes nothing: give it some time, and take nothing from it meanwhile."""
        self._slow_timer = self._loop.call_later(self._limits.slow_reader_seconds, self.abort)

    def resume_writing(self) -> None:
        """The peer reads again."""
        if self._slow_timer is not None:
            self._slow_timer.cancel()
            self._slow_timer = None
        self._flush()
        self.resume()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the port has it
        """End."""
        self.is_closing = True
        self._cancel_timer()
        for timer in (self._slow_timer, self._close_timer):
            if timer is not None:
                timer.cancel()
        self._receiver.lost()

    # ---- inside ----------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        self._is_scheduled = False
        for _ in range(_TURN):
            if self.is_closing:
                return
            if self._receiver.is_full or self._is_blocked:
                # a peer with nothing to say is still read, so that its end is noticed
                if self._decoder.buffered_bytes:
                    self._pause()
                return
            try:
                packet = self._decoder.next_packet()
            except MqttProtocolError as error:
                self._receiver.broken(error)
                return
            if packet is None:
                self._unpause()
                return
            self._receiver.received(packet)
        self._pause()
        self._is_scheduled = True
        self._loop.call_soon(self._dispatch)

    def _pause(self) -> None:
        if not self._is_paused:
            self._is_paused = True
            self.transport.pause_reading()

    def _unpause(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._heard_at = self._loop.time()
            self.transport.resume_reading()

    @property
    def _is_blocked(self) -> bool:
        return self._slow_timer is not None

    def _flush(self) -> None:
        """Write in pieces: the transport tells that it is full only between two writes."""
        while self._outgoing and not self._is_blocked and not self.is_closing:
            size = count = 0
            for packet in self._outgoing:
                size += len(packet)
                count += 1
                if size >= _PIECE_BYTES:
                    break
            piece = b"".join(self._outgoing[:count])
            del self._outgoing[:count]
            self._outgoing_bytes -= size
            self.transport.write(piece)

    def _check_life(self) -> None:
        if self._is_paused:
            # signs of life are not read at the moment
            self._heard_at = self._loop.time()
        rest = self._heard_at + self._keep_alive - self._loop.time()
        if rest > 0:
            self._timer = self._loop.call_later(rest, self._check_life)
        else:
            self._time_out()

    def _time_out(self) -> None:
        self._timer = None
        self._receiver.timed_out()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
