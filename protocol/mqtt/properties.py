"""MQTT 5 properties: which exist, where they may stand, and their bytes.

Properties are one frozen value with a field each; an absent property is None. Must not
know how packets carry them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from protocol.mqtt.errors import MqttProtocolError
from protocol.mqtt.reasons import PacketType, Reason
from protocol.mqtt.wire import (
    Reader,
    encode_binary,
    encode_text,
    encode_u16,
    encode_u32,
    encode_varint,
)

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Properties:
    """The properties of one packet; `subscription_identifiers` and `user_properties` repeat."""

    payload_format_indicator: int | None = None
    message_expiry_interval: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    subscription_identifiers: tuple[int, ...] = ()
    session_expiry_interval: int | None = None
    assigned_client_identifier: str | None = None
    server_keep_alive: int | None = None
    authentication_method: str | None = None
    authentication_data: bytes | None = None
    request_problem_information: int | None = None
    will_delay_interval: int | None = None
    request_response_information: int | None = None
    response_information: str | None = None
    server_reference: str | None = None
    reason_string: str | None = None
    receive_maximum: int | None = None
    topic_alias_maximum: int | None = None
    topic_alias: int | None = None
    maximum_qos: int | None = None
    retain_available: int | None = None
    user_properties: tuple[tuple[str, str], ...] = ()
    maximum_packet_size: int | None = None
    wildcard_subscription_available: int | None = None
    subscription_identifier_available: int | None = None
    shared_subscription_available: int | None = None

    def __repr__(self) -> str:
        """Show what is present."""
        present = ((field.name, getattr(self, field.name)) for field in fields(self))
        shown = (f"{name}={value!r}" for name, value in present if value not in {None, ()})
        return f"Properties({', '.join(shown)})"


NO_PROPERTIES = Properties()

WILL = "will"
Place = PacketType | str
Value = int | str | bytes | tuple[str, str]


class _Kind(Enum):
    FLAG = "flag"
    U16 = "two bytes"
    U16_POSITIVE = "two bytes, not zero"
    U32 = "four bytes"
    U32_POSITIVE = "four bytes, not zero"
    VARINT_POSITIVE = "variable byte integer, not zero"
    TEXT = "text"
    BINARY = "binary"
    PAIR = "pair of texts"


class _Definition(NamedTuple):
    identifier: int
    name: str
    kind: _Kind
    places: frozenset[Place]

    @property
    def repeats(self) -> bool:
        return isinstance(getattr(NO_PROPERTIES, self.name), tuple)


def _encode_flag(value: int) -> bytes:
    return bytes((value,))


def _encode_pair(value: tuple[str, str]) -> bytes:
    return encode_text(value[0]) + encode_text(value[1])


def _decode_pair(reader: Reader) -> tuple[str, str]:
    return reader.text(), reader.text()


_FORMS: dict[_Kind, tuple[Callable[[Any], bytes], Callable[[Reader], Value]]] = {
    _Kind.FLAG: (_encode_flag, Reader.u8),
    _Kind.U16: (encode_u16, Reader.u16),
    _Kind.U16_POSITIVE: (encode_u16, Reader.u16),
    _Kind.U32: (encode_u32, Reader.u32),
    _Kind.U32_POSITIVE: (encode_u32, Reader.u32),
    _Kind.VARINT_POSITIVE: (encode_varint, Reader.varint),
    _Kind.TEXT: (encode_text, Reader.text),
    _Kind.BINARY: (encode_binary, Reader.binary),
    _Kind.PAIR: (_encode_pair, _decode_pair),
}

_P = PacketType
_ACKS: tuple[Place, ...] = (_P.PUBACK, _P.PUBREC, _P.PUBREL, _P.PUBCOMP, _P.SUBACK, _P.UNSUBACK)
_MESSAGE: tuple[Place, ...] = (_P.PUBLISH, WILL)
_EVERYWHERE: tuple[Place, ...] = (
    *_ACKS, _P.CONNECT, _P.CONNACK, _P.PUBLISH, WILL,
    _P.SUBSCRIBE, _P.UNSUBSCRIBE, _P.DISCONNECT, _P.AUTH,
)  # fmt: skip


def _define(identifier: int, name: str, kind: _Kind, *places: Place) -> _Definition:
    return _Definition(identifier, name, kind, frozenset(places))


_DEFINITIONS = (
    _define(1, "payload_format_indicator", _Kind.FLAG, *_MESSAGE),
    _define(2, "message_expiry_interval", _Kind.U32, *_MESSAGE),
    _define(3, "content_type", _Kind.TEXT, *_MESSAGE),
    _define(8, "response_topic", _Kind.TEXT, *_MESSAGE),
    _define(9, "correlation_data", _Kind.BINARY, *_MESSAGE),
    _define(11, "subscription_identifiers", _Kind.VARINT_POSITIVE, _P.PUBLISH, _P.SUBSCRIBE),
    _define(17, "session_expiry_interval", _Kind.U32, _P.CONNECT, _P.CONNACK, _P.DISCONNECT),
    _define(18, "assigned_client_identifier", _Kind.TEXT, _P.CONNACK),
    _define(19, "server_keep_alive", _Kind.U16, _P.CONNACK),
    _define(21, "authentication_method", _Kind.TEXT, _P.CONNECT, _P.CONNACK, _P.AUTH),
    _define(22, "authentication_data", _Kind.BINARY, _P.CONNECT, _P.CONNACK, _P.AUTH),
    _define(23, "request_problem_information", _Kind.FLAG, _P.CONNECT),
    _define(24, "will_delay_interval", _Kind.U32, WILL),
    _define(25, "request_response_information", _Kind.FLAG, _P.CONNECT),
    _define(26, "response_information", _Kind.TEXT, _P.CONNACK),
    _define(28, "server_reference", _Kind.TEXT, _P.CONNACK, _P.DISCONNECT),
    _define(31, "reason_string", _Kind.TEXT, *_ACKS, _P.CONNACK, _P.DISCONNECT, _P.AUTH),
    _define(33, "receive_maximum", _Kind.U16_POSITIVE, _P.CONNECT, _P.CONNACK),
    _define(34, "topic_alias_maximum", _Kind.U16, _P.CONNECT, _P.CONNACK),
    _define(35, "topic_alias", _Kind.U16_POSITIVE, _P.PUBLISH),
    _define(36, "maximum_qos", _Kind.FLAG, _P.CONNACK),
    _define(37, "retain_available", _Kind.FLAG, _P.CONNACK),
    _define(38, "user_properties", _Kind.PAIR, *_EVERYWHERE),
    _define(39, "maximum_packet_size", _Kind.U32_POSITIVE, _P.CONNECT, _P.CONNACK),
    _define(40, "wildcard_subscription_available", _Kind.FLAG, _P.CONNACK),
    _define(41, "subscription_identifier_available", _Kind.FLAG, _P.CONNACK),
    _define(42, "shared_subscription_available", _Kind.FLAG, _P.CONNACK),
)
_BY_IDENTIFIER = {definition.identifier: definition for definition in _DEFINITIONS}
_BY_NAME = {definition.name: definition for definition in _DEFINITIONS}
_NAMES = tuple(field.name for field in fields(Properties))
_POSITIVE = frozenset({_Kind.U16_POSITIVE, _Kind.U32_POSITIVE, _Kind.VARINT_POSITIVE})


def property_names(place: Place) -> frozenset[str]:
    """Return the names of the properties that may stand in `place` (a packet type or WILL)."""
    return frozenset(d.name for d in _DEFINITIONS if place in d.places)


def encode_properties(properties: Properties, place: Place) -> bytes:
    """Return the property length and properties of a packet or will."""
    if properties is NO_PROPERTIES:
        return b"\0"
    body = bytearray()
    for name in _NAMES:
        value = getattr(properties, name)
        if value is None or value == ():
            continue
        definition = _BY_NAME[name]
        values: tuple[Value, ...] = value if definition.repeats else (value,)
        _check_place(definition, place, len(values))
        for single in values:
            _check_value(definition, single)
            body.append(definition.identifier)
            body += _FORMS[definition.kind][0](single)
    _check_combination(properties)
    return encode_varint(len(body)) + bytes(body)


def decode_properties(reader: Reader, place: Place) -> Properties:
    """Take the property length and properties of a packet or will from `reader`."""
    length = reader.varint()
    if not length:
        return NO_PROPERTIES
    found: dict[str, Value | tuple[Value, ...]] = {}
    repeated: dict[str, list[Value]] = {}
    part = reader.part(length)
    while part.remaining:
        identifier = part.varint()
        definition = _BY_IDENTIFIER.get(identifier)
        if definition is None:
            raise MqttProtocolError(f"property {identifier} does not exist")
        value = _FORMS[definition.kind][1](part)
        _check_value(definition, value)
        if definition.repeats:
            values = repeated.setdefault(definition.name, [])
            values.append(value)
            _check_place(definition, place, len(values))
            continue
        _check_place(definition, place, 1)
        if definition.name in found:
            _refuse(f"property {definition.name!r} stands twice")
        found[definition.name] = value
    found.update((name, tuple(values)) for name, values in repeated.items())
    # the table above gives every name the type of its field
    properties = Properties(**found)  # type: ignore[arg-type]
    _check_combination(properties)
    return properties


def _check_place(definition: _Definition, place: Place, count: int) -> None:
    if place not in definition.places:
        _refuse(f"property {definition.name!r} must not stand here")
    if definition.kind is _Kind.VARINT_POSITIVE and place is PacketType.SUBSCRIBE and count > 1:
        _refuse("a subscription has more than one identifier")


def _check_value(definition: _Definition, value: Value) -> None:
    if definition.kind is _Kind.FLAG and value not in {0, 1}:
        _refuse(f"property {definition.name!r} must be 0 or 1, not {value!r}")
    if definition.kind in _POSITIVE and value == 0:
        _refuse(f"property {definition.name!r} must not be 0")
    if definition.name == "response_topic" and ("#" in str(value) or "+" in str(value)):
        _refuse("the response topic holds a wildcard")


def _check_combination(properties: Properties) -> None:
    if properties.authentication_data is not None and properties.authentication_method is None:
        _refuse("authentication data without a method")


def _refuse(message: str) -> None:
    raise MqttProtocolError(message, Reason.PROTOCOL_ERROR)
