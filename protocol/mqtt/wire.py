"""The primitive types of MQTT: integers, lengths, UTF-8 strings, binary data.

Decides what a well-formed primitive is. Must not know any packet.
"""

from __future__ import annotations

import struct

from protocol.mqtt.errors import MqttProtocolError
from protocol.mqtt.reasons import Reason

MAX_VARINT = 268_435_455
MAX_U16 = 0xFFFF
MAX_U32 = 0xFFFF_FFFF

_U16 = struct.Struct("!H")
_U32 = struct.Struct("!I")
_CONTINUES = 0x80
_VARINT_MAX_BYTES = 4

pack_u16 = _U16.pack


def check_text(text: str) -> None:
    """Raise when `text` holds what MQTT forbids in every string: the NUL character."""
    if "\0" in text:
        raise MqttProtocolError("a string holds the NUL character")


def encode_varint(value: int) -> bytes:
    """Return `value` as a variable byte integer of the shortest form."""
    if not 0 <= value <= MAX_VARINT:
        raise MqttProtocolError(f"{value} does not fit a variable byte integer")
    encoded = bytearray()
    while value >= _CONTINUES:
        encoded.append(value & 0x7F | _CONTINUES)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def encode_u16(value: int) -> bytes:
    """Return `value` as two bytes, most significant first."""
    if not 0 <= value <= MAX_U16:
        raise MqttProtocolError(f"{value} does not fit two bytes")
    return _U16.pack(value)


def encode_u32(value: int) -> bytes:
    """Return `value` as four bytes, most significant first."""
    if not 0 <= value <= MAX_U32:
        raise MqttProtocolError(f"{value} does not fit four bytes")
    return _U32.pack(value)


def encode_binary(data: bytes) -> bytes:
    """Return `data` behind its two-byte length."""
    if len(data) > MAX_U16:
        raise MqttProtocolError(f"{len(data)} bytes do not fit a field of at most {MAX_U16}")
    return _U16.pack(len(data)) + data


def encode_text(text: str) -> bytes:
    """Return `text` as UTF-8 behind its two-byte length."""
    check_text(text)
    try:
        return encode_binary(text.encode())
    except UnicodeEncodeError as error:
        raise MqttProtocolError("a string holds a surrogate code point") from error


def decode_text(data: bytes | memoryview) -> str:
    """Return strict UTF-8 `data` as text: no surrogates, no overlong forms, no NUL."""
    try:
        text = str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise MqttProtocolError("a string is not UTF-8") from error
    check_text(text)
    return text


class Reader:
    """Takes primitives from the front of one packet body; running short is malformed."""

    __slots__ = ("_data", "_end", "position")

    def __init__(self, data: bytes | memoryview, start: int, end: int) -> None:
        self._data = data
        self._end = end
        self.position = start

    @property
    def remaining(self) -> int:
        """Bytes not taken yet."""
        return self._end - self.position

    def u8(self) -> int:
        """Take one byte."""
        return self._data[self._advance(1)]

    def u16(self) -> int:
        """Take two bytes, most significant first."""
        value: int = _U16.unpack_from(self._data, self._advance(2))[0]
        return value

    def u32(self) -> int:
        """Take four bytes, most significant first."""
        value: int = _U32.unpack_from(self._data, self._advance(4))[0]
        return value

    def varint(self) -> int:
        """Take a variable byte integer; a longer form than needed is malformed."""
        value = 0
        for index in range(_VARINT_MAX_BYTES):
            byte = self.u8()
            value |= (byte & 0x7F) << (7 * index)
            if not byte & _CONTINUES:
                if index and not byte:
                    raise MqttProtocolError("a variable byte integer is longer than needed")
                return value
        raise MqttProtocolError("a variable byte integer has more than four bytes")

    def binary(self) -> bytes:
        """Take bytes behind their two-byte length."""
        length = self.u16()
        start = self._advance(length)
        return bytes(self._data[start : start + length])

    def text(self) -> str:
        """Take a UTF-8 string behind its two-byte length."""
        length = self.u16()
        start = self._advance(length)
        return decode_text(self._data[start : start + length])

    def packet_id(self) -> int:
        """Take a packet identifier; zero is a protocol error."""
        value = self.u16()
        if not value:
            raise MqttProtocolError("the packet identifier is zero", Reason.PROTOCOL_ERROR)
        return value

    def rest(self) -> bytes:
        """Take everything that is left."""
        start = self._advance(self.remaining)
        return bytes(self._data[start : self._end])

    def finish(self) -> None:
        """Raise when something is left: the packet is longer than its content."""
        if self.position != self._end:
            raise MqttProtocolError(f"{self.remaining} bytes follow the end of the packet")

    def part(self, length: int) -> Reader:
        """Take `length` bytes as a reader of their own."""
        start = self._advance(length)
        return Reader(self._data, start, start + length)

    def _advance(self, count: int) -> int:
        start = self.position
        if start + count > self._end:
            raise MqttProtocolError("the packet ends inside a field")
        self.position = start + count
        return start
