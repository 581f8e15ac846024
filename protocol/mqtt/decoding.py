"""One complete packet body to one packet. Strict: what the standard forbids is refused.

Must not find packet borders (`Decoder` does) and must not keep state.
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
    Subscription,
    Unsuback,
    Unsubscribe,
    Will,
)
from protocol.mqtt.properties import (
    NO_PROPERTIES,
    WILL,
    Place,
    Properties,
    decode_properties,
)
from protocol.mqtt.reasons import PacketType, Reason, Version
from protocol.mqtt.rules import MAX_QOS, check_reasons
from protocol.mqtt.wire import Reader, decode_text

_MAX_RETAIN_HANDLING = 2
_ACKS: dict[PacketType, type[Puback | Pubrec | Pubrel | Pubcomp]] = {
    PacketType.PUBACK: Puback,
    PacketType.PUBREC: Pubrec,
    PacketType.PUBREL: Pubrel,
    PacketType.PUBCOMP: Pubcomp,
}


def decode_publish(
    data: bytes | memoryview, start: int, end: int, flags: int, version: Version
) -> Publish:
    """Return the PUBLISH whose body is `data[start:end]`; `flags` is the low half byte."""
    qos = flags >> 1 & 3
    if qos > MAX_QOS or (not qos and flags & 8):
        raise MqttProtocolError("PUBLISH has impossible flags")
    at = start + 2
    if at > end:
        raise MqttProtocolError("the packet ends inside a field")
    at += data[start] << 8 | data[start + 1]
    packet_id = 0
    topic_end = at
    if qos:
        at += 2
    if at > end:
        raise MqttProtocolError("the packet ends inside a field")
    if qos:
        packet_id = data[topic_end] << 8 | data[topic_end + 1]
        if not packet_id:
            raise MqttProtocolError("the packet identifier is zero", Reason.PROTOCOL_ERROR)
    topic = decode_text(data[start + 2 : topic_end])
    properties = NO_PROPERTIES
    if version is Version.V5:
        properties, at = _publish_properties(data, at, end)
    if topic or properties.topic_alias is None:
        check_topic_name(topic)
    return Publish(
        topic, bytes(data[at:end]), qos, packet_id, bool(flags & 1), bool(flags & 8), properties
    )


def _publish_properties(data: bytes | memoryview, at: int, end: int) -> tuple[Properties, int]:
    if at < end and not data[at]:
        return NO_PROPERTIES, at + 1
    reader = Reader(data, at, end)
    return decode_properties(reader, PacketType.PUBLISH), reader.position


def decode_body(kind: PacketType, reader: Reader, version: Version) -> Packet:
    """Return the packet of a type other than CONNECT and PUBLISH; `reader` holds its body."""
    packet = _decode(kind, reader, version)
    reader.finish()
    return packet


def _decode(kind: PacketType, reader: Reader, version: Version) -> Packet:  # noqa: PLR0911 - one return per packet type
    match kind:
        case PacketType.PUBACK | PacketType.PUBREC | PacketType.PUBREL | PacketType.PUBCOMP:
            return _acknowledgement(kind, reader, version)
        case PacketType.PINGREQ:
            return Pingreq()
        case PacketType.PINGRESP:
            return Pingresp()
        case PacketType.SUBSCRIBE | PacketType.UNSUBSCRIBE:
            return _subscribing(kind, reader, version)
        case PacketType.SUBACK | PacketType.UNSUBACK:
            return _subscribed(kind, reader, version)
        case PacketType.CONNACK:
            return _connack(reader, version)
        case PacketType.DISCONNECT | PacketType.AUTH:
            return _closing(kind, reader, version)
        case PacketType.CONNECT | PacketType.PUBLISH:
            raise AssertionError(kind)
        case _:
            assert_never(kind)


def decode_connect(reader: Reader) -> tuple[Version, Connect]:
    """Return the version a client wants and its CONNECT."""
    version = _version(reader)
    flags = reader.u8()
    will_qos = flags >> 3 & 3
    if flags & 1 or will_qos > MAX_QOS or (not flags & 0x04 and flags & 0x38):
        raise MqttProtocolError("CONNECT has impossible flags")
    if version is Version.V311 and flags & 0x40 and not flags & 0x80:
        raise MqttProtocolError("a password without a user name")
    keep_alive = reader.u16()
    properties = _properties(reader, PacketType.CONNECT, version)
    client_id = reader.text()
    will = _will(reader, version, will_qos, retain=bool(flags & 0x20)) if flags & 0x04 else None
    username = reader.text() if flags & 0x80 else None
    password = reader.binary() if flags & 0x40 else None
    reader.finish()
    clean_start = bool(flags & 2)
    connect = Connect(client_id, clean_start, keep_alive, username, password, will, properties)
    return version, connect


def _version(reader: Reader) -> Version:
    name, level = reader.binary(), reader.u8()
    if name not in {b"MQTT", b"MQIsdp"}:
        raise MqttProtocolError("CONNECT does not name MQTT")
    if name == b"MQTT" and level == Version.V311:
        return Version.V311
    if name == b"MQTT" and level == Version.V5:
        return Version.V5
    raise MqttProtocolError(
        f"MQTT protocol level {level} is not spoken here", Reason.UNSUPPORTED_PROTOCOL_VERSION
    )


def _will(reader: Reader, version: Version, qos: int, *, retain: bool) -> Will:
    properties = _properties(reader, WILL, version)
    topic = reader.text()
    check_topic_name(topic)
    return Will(topic, reader.binary(), qos, retain, properties)


def _connack(reader: Reader, version: Version) -> Connack:
    flags, reason = reader.u8(), reader.u8()
    if flags > 1 or (flags and reason):
        raise MqttProtocolError("CONNACK has impossible flags")
    kind = PacketType.CONNACK
    check_reasons(kind, (reason,), version)
    return Connack(reason, bool(flags), _properties(reader, kind, version))


def _acknowledgement(
    kind: PacketType, reader: Reader, version: Version
) -> Puback | Pubrec | Pubrel | Pubcomp:
    packet_id = reader.packet_id()
    if not reader.remaining:
        return _ACKS[kind](packet_id)
    reason, properties = _reason_tail(kind, reader, version)
    return _ACKS[kind](packet_id, reason, properties)


def _closing(kind: PacketType, reader: Reader, version: Version) -> Disconnect | Auth:
    reason, properties = _reason_tail(kind, reader, version)
    if kind is PacketType.DISCONNECT:
        return Disconnect(reason, properties)
    return Auth(reason, properties)


def _reason_tail(kind: PacketType, reader: Reader, version: Version) -> tuple[int, Properties]:
    """Take reason and properties; each may be absent from the end in version 5."""
    if version is Version.V311 or not reader.remaining:
        return 0, NO_PROPERTIES
    reason = reader.u8()
    check_reasons(kind, (reason,), version)
    return reason, decode_properties(reader, kind) if reader.remaining else NO_PROPERTIES


def _subscribing(kind: PacketType, reader: Reader, version: Version) -> Subscribe | Unsubscribe:
    packet_id = reader.packet_id()
    properties = _properties(reader, kind, version)
    if not reader.remaining:
        raise MqttProtocolError(f"{kind.name} without a filter", Reason.PROTOCOL_ERROR)
    if kind is PacketType.SUBSCRIBE:
        subscriptions = []
        while reader.remaining:
            subscriptions.append(_subscription(reader, version))
        return Subscribe(packet_id, tuple(subscriptions), properties)
    filters = []
    while reader.remaining:
        filters.append(_filter(reader))
    return Unsubscribe(packet_id, tuple(filters), properties)


def _subscription(reader: Reader, version: Version) -> Subscription:
    topic_filter = _filter(reader)
    options = reader.u8()
    qos, handling = options & 3, options >> 4 & 3
    reserved = 0xFC if version is Version.V311 else 0xC0
    if options & reserved or qos > MAX_QOS or handling > _MAX_RETAIN_HANDLING:
        raise MqttProtocolError("a subscription has impossible options")
    return Subscription(topic_filter, qos, bool(options & 4), bool(options & 8), handling)


def _filter(reader: Reader) -> str:
    topic_filter = reader.text()
    check_topic_filter(topic_filter)
    return topic_filter


def _subscribed(kind: PacketType, reader: Reader, version: Version) -> Suback | Unsuback:
    packet_id = reader.packet_id()
    properties = _properties(reader, kind, version)
    if kind is PacketType.UNSUBACK and version is Version.V311:
        return Unsuback(packet_id)
    reasons = tuple(reader.rest())
    if not reasons:
        raise MqttProtocolError(f"{kind.name} without a reason", Reason.PROTOCOL_ERROR)
    check_reasons(kind, reasons, version)
    if kind is PacketType.SUBACK:
        return Suback(packet_id, reasons, properties)
    return Unsuback(packet_id, reasons, properties)


def _properties(reader: Reader, place: Place, version: Version) -> Properties:
    return decode_properties(reader, place) if version is Version.V5 else NO_PROPERTIES
