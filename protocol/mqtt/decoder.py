"""A byte stream to packets, however the stream is cut.

Finds packet borders, bounds their size and learns the version from CONNECT. Must not do I/O.
"""

from __future__ import annotations

from protocol.mqtt.decoding import decode_body, decode_connect, decode_publish
from protocol.mqtt.errors import MqttProtocolError
from protocol.mqtt.packets import Packet, Puback
from protocol.mqtt.reasons import PacketType, Reason, Version
from protocol.mqtt.wire import Reader

DEFAULT_MAX_PACKET_BYTES = 1024 * 1024

_TYPES: tuple[PacketType | None, ...] = (None, *PacketType)
_FLAGS = {PacketType.PUBREL: 2, PacketType.SUBSCRIBE: 2, PacketType.UNSUBSCRIBE: 2}
_PUBACK = 0x40
_PUBACK_BYTES = 2
_CONTINUES = 0x80
_LAST_SHIFT = 21


class Decoder:
    """Turns fed bytes into packets; stays broken after the first error.

    Holds at most what was fed and not yet taken: a caller that stops taking packets has to
    stop feeding.
    """

    __slots__ = ("_buffer", "_error", "_position", "max_packet_bytes", "version")

    def __init__(
        self,
        version: Version | None = None,
        *,
        max_packet_bytes: int = DEFAULT_MAX_PACKET_BYTES,
    ) -> None:
        """Decode `version`, or the version that the first packet, a CONNECT, names."""
        self.version = version
        self.max_packet_bytes = max_packet_bytes
        self._buffer: bytes | bytearray = b""
        self._position = 0
        self._error: MqttProtocolError | None = None

    @property
    def buffered_bytes(self) -> int:
        """Bytes fed and not yet returned as packets."""
        return len(self._buffer) - self._position

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        if self._position == len(self._buffer):
            self._buffer = data
        elif isinstance(self._buffer, bytearray):
            del self._buffer[: self._position]
            self._buffer += data
        else:
            with memoryview(self._buffer) as view:
                self._buffer = bytearray(view[self._position :])
            self._buffer += data
        self._position = 0

    def next_packet(self) -> Packet | None:
        """Return the next packet, or None when more bytes are needed.

        Raises:
            MqttProtocolError: the stream is not MQTT from here on; every later call raises it
                again.
        """
        if self._error is not None:
            raise self._error
        try:
            return self._take()
        except MqttProtocolError as error:
            self._error = error
            raise

    def _take(self) -> Packet | None:
        buffer, position = self._buffer, self._position
        if len(buffer) - position < 2:  # noqa: PLR2004 - the shortest packet
            self._check_first_byte()
            return None
        first = buffer[position]
        length = buffer[position + 1]
        start = position + 2
        if length & _CONTINUES:
            start, length = self._long_length(start, length)
            if not start:
                self._check_first_byte()
                return None
        end = start + length
        kind = self._kind(first)
        if end - position > self.max_packet_bytes:
            raise MqttProtocolError(
                f"a packet of {end - position} bytes; the limit is {self.max_packet_bytes}",
                Reason.PACKET_TOO_LARGE,
            )
        if end > len(buffer):
            return None
        packet = self._decode(kind, first, start, end)
        self._position = end
        if end == len(buffer):
            self._buffer, self._position = b"", 0
        return packet

    def _long_length(self, at: int, low: int) -> tuple[int, int]:
        """Return where the body starts and its length; start 0 says that bytes are missing."""
        buffer = self._buffer
        length = low & 0x7F
        for shift in range(7, _LAST_SHIFT + 1, 7):
            if at == len(buffer):
                return 0, 0
            byte = buffer[at]
            at += 1
            length |= (byte & 0x7F) << shift
            if not byte & _CONTINUES:
                if not byte:
                    raise MqttProtocolError("the remaining length is longer than needed")
                return at, length
        raise MqttProtocolError("the remaining length has more than four bytes")

    def _check_first_byte(self) -> None:
        if self.buffered_bytes:
            self._kind(self._buffer[self._position])

    def _kind(self, first: int) -> PacketType:
        kind = _TYPES[first >> 4]
        if kind is None:
            raise MqttProtocolError("packet type 0 does not exist")
        if kind is not PacketType.PUBLISH and first & 0x0F != _FLAGS.get(kind, 0):
            raise MqttProtocolError(f"{kind.name} has impossible flags")
        if self.version is None and kind is not PacketType.CONNECT:
            raise MqttProtocolError(f"{kind.name} before CONNECT", Reason.PROTOCOL_ERROR)
        if kind is PacketType.AUTH and self.version is Version.V311:
            raise MqttProtocolError("MQTT 3.1.1 has no AUTH")
        return kind

    def _decode(self, kind: PacketType, first: int, start: int, end: int) -> Packet:
        buffer = self._buffer
        if isinstance(buffer, bytearray):
            with memoryview(buffer) as view:
                return self._decode_from(view, kind, first, start, end)
        return self._decode_from(buffer, kind, first, start, end)

    def _decode_from(
        self, data: bytes | memoryview, kind: PacketType, first: int, start: int, end: int
    ) -> Packet:
        version = self.version
        if kind is PacketType.CONNECT or version is None:
            named, connect = decode_connect(Reader(data, start, end))
            if version not in {None, named}:
                raise MqttProtocolError("CONNECT names another version", Reason.PROTOCOL_ERROR)
            self.version = named
            return connect
        if kind is PacketType.PUBLISH:
            return decode_publish(data, start, end, first & 0x0F, version)
        if first == _PUBACK and end - start == _PUBACK_BYTES:
            return _short_puback(data, start)
        return decode_body(kind, Reader(data, start, end), version)


def _short_puback(data: bytes | memoryview, start: int) -> Puback:
    packet_id = data[start] << 8 | data[start + 1]
    if not packet_id:
        raise MqttProtocolError("the packet identifier is zero", Reason.PROTOCOL_ERROR)
    return Puback(packet_id)
