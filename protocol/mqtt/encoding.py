"""Packets to bytes, for both versions and both directions.

Refuses what the version cannot express, so that decoding always gives the packet back. Must
not do I/O.
"""

from __future__ import annotations

from typing import assert_never

from protocol.mqtt.errors import MqttProtocolError
from protocol.mqtt.filters import check_topic_filter, check_topic_name
from protocol.mqtt.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from protocol.mqtt.properties import NO_PROPERTIES, WILL, Properties, encode_properties
from protocol.mqtt.reasons import PacketType, Reason, Version
from protocol.mqtt.rules import MAX_QOS, check_reasons
from protocol.mqtt.wire import encode_binary, encode_text, encode_u16, encode_varint, pack_u16

_MAX_PACKET_ID = 0xFFFF
_MAX_RETAIN_HANDLING = 2
_PINGREQ = b"\xc0\x00"
_PINGRESP = b"\xd0\x00"
_PUBACK_HEADER = b"\x40\x02"
_SHORT_BODY = 128

_Subscribing = Subscribe | Suback | Unsubscribe | Unsuback
_Rare = (
    Puback
    | Pubrec
    | Pubrel
    | Pubcomp
    | Connect
    | Connack
    | Pingreq
    | Pingresp
    | Disconnect
    | Auth
    | _Subscribing
)

_ACK_TYPES: dict[type[Packet], PacketType] = {
    Puback: PacketType.PUBACK,
    Pubrec: PacketType.PUBREC,
    Pubrel: PacketType.PUBREL,
    Pubcomp: PacketType.PUBCOMP,
}


def encode(packet: Packet, version: Version) -> bytes:
    """Return the bytes of `packet`.

    Raises:
        MqttProtocolError: the packet breaks a rule, or `version` cannot carry a part of it.
    """
    if isinstance(packet, Publish):
        return _publish(packet, version)
    if isinstance(packet, Puback) and not packet.reason and packet.properties is NO_PROPERTIES:
        return _PUBACK_HEADER + _packet_id(packet.packet_id)
    return _rare(packet, version)


def _rare(packet: _Rare, version: Version) -> bytes:
    match packet:
        case Puback() | Pubrec() | Pubrel() | Pubcomp():
            return _acknowledgement(packet, version)
        case Connect():
            return _connect(packet, version)
        case Connack():
            return _connack(packet, version)
        case Pingreq() | Pingresp():
            return _PINGREQ if isinstance(packet, Pingreq) else _PINGRESP
        case Disconnect() | Auth():
            return _closing(packet, version)
        case Subscribe() | Suback() | Unsubscribe() | Unsuback():
            return _subscribing(packet, version)
        case _:
            assert_never(packet)


def _publish(packet: Publish, version: Version) -> bytes:
    if packet.topic or version is Version.V311:
        check_topic_name(packet.topic)
    elif packet.properties.topic_alias is None:
        raise MqttProtocolError("an empty topic without an alias", Reason.PROTOCOL_ERROR)
    qos = packet.qos
    _check_message(qos, dup=packet.dup, packet_id=packet.packet_id)
    properties = _properties(packet.properties, PacketType.PUBLISH, version)
    topic = encode_text(packet.topic)
    payload = packet.payload
    length = len(topic) + len(payload) + len(properties) + (2 if qos else 0)
    first = 0x30 | packet.dup << 3 | qos << 1 | packet.retain
    identifier = pack_u16(packet.packet_id) if qos else b""
    header = bytes((first, length)) if length < _SHORT_BODY else _long_header(first, length)
    return b"".join((header, topic, identifier, properties, payload))


def _check_message(qos: int, *, dup: bool, packet_id: int) -> None:
    if not 0 <= qos <= MAX_QOS:
        raise MqttProtocolError(f"QoS {qos} does not exist")
    if qos and not 0 < packet_id <= _MAX_PACKET_ID:
        raise MqttProtocolError(f"{packet_id} is not a packet identifier", Reason.PROTOCOL_ERROR)
    if not qos and (dup or packet_id):
        raise MqttProtocolError("a message with QoS 0 has neither identifier nor duplicates")


def _acknowledgement(packet: Puback | Pubrec | Pubrel | Pubcomp, version: Version) -> bytes:
    kind = _ACK_TYPES[type(packet)]
    flags = 2 if kind is PacketType.PUBREL else 0
    tail = _reason_tail(packet.reason, packet.properties, kind, version)
    return _frame(kind, flags, (_packet_id(packet.packet_id), tail))


def _closing(packet: Disconnect | Auth, version: Version) -> bytes:
    kind = PacketType.DISCONNECT if isinstance(packet, Disconnect) else PacketType.AUTH
    if kind is PacketType.AUTH and version is Version.V311:
        raise MqttProtocolError("MQTT 3.1.1 has no AUTH", Reason.PROTOCOL_ERROR)
    return _frame(kind, 0, (_reason_tail(packet.reason, packet.properties, kind, version),))


def _reason_tail(reason: int, properties: Properties, kind: PacketType, version: Version) -> bytes:
    """Return reason and properties in the shortest form: absent when they say nothing."""
    if version is Version.V311:
        if reason:
            raise MqttProtocolError("MQTT 3.1.1 carries no reason here", Reason.PROTOCOL_ERROR)
        return _properties(properties, kind, version)
    check_reasons(kind, (reason,), version)
    if properties == NO_PROPERTIES:
        return bytes((reason,)) if reason else b""
    return bytes((reason,)) + encode_properties(properties, kind)


def _connect(packet: Connect, version: Version) -> bytes:
    will, username, password = packet.will, packet.username, packet.password
    if version is Version.V311 and password is not None and username is None:
        raise MqttProtocolError("a password without a user name", Reason.PROTOCOL_ERROR)
    flags = 0x02 if packet.clean_start else 0
    parts = [encode_text(packet.client_id)]
    if will is not None:
        check_topic_name(will.topic)
        _check_message(will.qos, dup=False, packet_id=1 if will.qos else 0)
        flags |= 0x04 | will.qos << 3 | will.retain << 5
        parts.append(_properties(will.properties, WILL, version))
        parts += (encode_text(will.topic), encode_binary(will.payload))
    if username is not None:
        flags |= 0x80
        parts.append(encode_text(username))
    if password is not None:
        flags |= 0x40
        parts.append(encode_binary(password))
    head = b"\x00\x04MQTT" + bytes((version, flags)) + encode_u16(packet.keep_alive)
    properties = _properties(packet.properties, PacketType.CONNECT, version)
    return _frame(PacketType.CONNECT, 0, (head, properties, *parts))


def _connack(packet: Connack, version: Version) -> bytes:
    kind = PacketType.CONNACK
    check_reasons(kind, (packet.reason,), version)
    if packet.reason and packet.session_present:
        raise MqttProtocolError("a refusal with a session", Reason.PROTOCOL_ERROR)
    head = bytes((packet.session_present, packet.reason))
    return _frame(kind, 0, (head, _properties(packet.properties, kind, version)))


def _subscribing(packet: _Subscribing, version: Version) -> bytes:
    kind, items = _subscription_items(packet, version)
    flags = 2 if isinstance(packet, Subscribe | Unsubscribe) else 0
    properties = _properties(packet.properties, kind, version)
    return _frame(kind, flags, (_packet_id(packet.packet_id), properties, *items))


def _subscription_items(packet: _Subscribing, version: Version) -> tuple[PacketType, list[bytes]]:
    match packet:
        case Subscribe():
            kind, items = PacketType.SUBSCRIBE, _subscriptions(packet, version)
        case Unsubscribe():
            kind = PacketType.UNSUBSCRIBE
            for topic_filter in packet.topic_filters:
                check_topic_filter(topic_filter)
            items = [encode_text(topic_filter) for topic_filter in packet.topic_filters]
        case Suback():
            kind = PacketType.SUBACK
            check_reasons(kind, packet.reasons, version)
            items = [bytes(packet.reasons)] if packet.reasons else []
        case Unsuback():
            kind = PacketType.UNSUBACK
            check_reasons(kind, packet.reasons, version)
            if version is Version.V311:
                return kind, _nothing(packet.reasons)
            items = [bytes(packet.reasons)] if packet.reasons else []
        case _:
            assert_never(packet)
    if not items:
        raise MqttProtocolError(f"{kind.name} without a filter", Reason.PROTOCOL_ERROR)
    return kind, items


def _nothing(reasons: tuple[int, ...]) -> list[bytes]:
    if reasons:
        raise MqttProtocolError("MQTT 3.1.1 carries no reasons here", Reason.PROTOCOL_ERROR)
    return []


def _subscriptions(packet: Subscribe, version: Version) -> list[bytes]:
    items = []
    for one in packet.subscriptions:
        check_topic_filter(one.topic_filter)
        if not 0 <= one.qos <= MAX_QOS or not 0 <= one.retain_handling <= _MAX_RETAIN_HANDLING:
            raise MqttProtocolError("a subscription option does not exist", Reason.PROTOCOL_ERROR)
        options = (
            one.qos | one.no_local << 2 | one.retain_as_published << 3 | one.retain_handling << 4
        )
        if version is Version.V311 and options != one.qos:
            raise MqttProtocolError("MQTT 3.1.1 has no such option", Reason.PROTOCOL_ERROR)
        items.append(encode_text(one.topic_filter) + bytes((options,)))
    return items


def _properties(properties: Properties, place: PacketType | str, version: Version) -> bytes:
    if version is Version.V5:
        return encode_properties(properties, place)
    if properties is not NO_PROPERTIES and properties != NO_PROPERTIES:
        raise MqttProtocolError("MQTT 3.1.1 has no properties", Reason.PROTOCOL_ERROR)
    return b""


def _packet_id(packet_id: int) -> bytes:
    if not 0 < packet_id <= _MAX_PACKET_ID:
        raise MqttProtocolError(f"{packet_id} is not a packet identifier", Reason.PROTOCOL_ERROR)
    return pack_u16(packet_id)


def _long_header(first: int, length: int) -> bytes:
    return bytes((first,)) + encode_varint(length)


def _frame(kind: PacketType, flags: int, parts: tuple[bytes, ...]) -> bytes:
    body = b"".join(parts)
    return _long_header(kind << 4 | flags, len(body)) + body
