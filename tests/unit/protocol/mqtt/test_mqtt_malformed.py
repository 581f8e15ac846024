"""What the standard forbids, on the way in and on the way out."""

from __future__ import annotations

import pytest

from protocol.mqtt import (
    Auth,
    Connack,
    Connect,
    Decoder,
    Disconnect,
    MqttProtocolError,
    Packet,
    Properties,
    Puback,
    Publish,
    Reason,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Version,
    Will,
    encode,
)

V311, V5 = Version.V311, Version.V5
BAD = Reason.MALFORMED_PACKET
WRONG = Reason.PROTOCOL_ERROR
HEAD = "0004 4d515454"

BYTES: dict[str, tuple[Version | None, str, Reason]] = {
    "type zero": (V5, "00", BAD),
    "reserved flags of PUBACK": (V5, "41 02 0001", BAD),
    "SUBSCRIBE without its flag": (V5, "80 06 0001 00 0001 61", BAD),
    "AUTH in 3.1.1": (V311, "f0 00", BAD),
    "length of five bytes": (V5, "30 80 80 80 80 01", BAD),
    "length longer than needed": (V5, "c0 80 00", BAD),
    "PINGREQ with a body": (V5, "c0 01 00", BAD),
    "not CONNECT first": (None, "c0", WRONG),
    "not MQTT": (None, "10 0e 0004 4d515455 04 02 003c 0002 6431", BAD),
    "MQTT 3.1": (
        None,
        "10 10 0006 4d5149736470 03 02 003c 0002 6431",
        Reason.UNSUPPORTED_PROTOCOL_VERSION,
    ),
    "MQTT 6": (None, f"10 0e {HEAD} 06 02 003c 0002 6431", Reason.UNSUPPORTED_PROTOCOL_VERSION),
    "reserved CONNECT flag": (None, f"10 0e {HEAD} 04 03 003c 0002 6431", BAD),
    "will QoS 3": (None, f"10 14 {HEAD} 04 1e 003c 0002 6431 0001 61 0001 62", BAD),
    "will flags without a will": (None, f"10 0e {HEAD} 04 22 003c 0002 6431", BAD),
    "password without user": (None, f"10 11 {HEAD} 04 42 003c 0002 6431 0001 61", BAD),
    "CONNECT with a tail": (None, f"10 0f {HEAD} 04 02 003c 0002 6431 00", BAD),
    "CONNECT cut inside the id": (None, f"10 0d {HEAD} 04 02 003c 0002 64", BAD),
    "will to a wildcard": (
        None,
        f"10 14 {HEAD} 04 06 003c 0002 6431 0001 23 0001 62",
        Reason.TOPIC_NAME_INVALID,
    ),
    "QoS 3": (V5, "36 06 0001 61 0001 00", BAD),
    "duplicate with QoS 0": (V5, "38 04 0001 61 00", BAD),
    "PUBLISH without identifier": (V311, "32 03 0001 61", BAD),
    "PUBLISH with identifier zero": (V311, "32 05 0001 61 0000", WRONG),
    "PUBLISH too short for a topic": (V311, "30 01 00", BAD),
    "PUBLISH cut inside the topic": (V311, "30 03 0002 61", BAD),
    "PUBLISH to a wildcard": (V311, "30 03 0001 2b", Reason.TOPIC_NAME_INVALID),
    "PUBLISH to nothing": (V311, "30 02 0000", Reason.TOPIC_NAME_INVALID),
    "PUBLISH to nothing without alias": (V5, "30 03 0000 00", Reason.TOPIC_NAME_INVALID),
    "PUBLISH without properties": (V5, "30 03 0001 61", BAD),
    "topic with NUL": (V311, "30 03 0001 00", BAD),
    "topic with a surrogate": (V311, "30 05 0003 eda080", BAD),
    "topic with an overlong form": (V311, "30 04 0002 c080", BAD),
    "alias zero": (V5, "30 07 0001 61 03 23 0000", WRONG),
    "subscription identifier zero": (V5, "30 06 0001 61 02 0b 00", WRONG),
    "unknown property": (V5, "30 06 0001 61 02 7f 00", BAD),
    "property of another packet": (V5, "30 07 0001 61 03 21 0001", WRONG),
    "property twice": (V5, "30 08 0001 61 04 01 01 01 01", WRONG),
    "property flag of two": (V5, "30 06 0001 61 02 01 02", WRONG),
    "properties longer than the packet": (V5, "30 05 0001 61 05 01", BAD),
    "property cut": (V5, "30 06 0001 61 02 02 00", BAD),
    "response topic with a wildcard": (V5, "30 08 0001 61 04 08 0001 23", WRONG),
    "receive maximum zero": (V5, "20 06 00 00 03 21 0000", WRONG),
    "authentication data alone": (V5, "20 07 00 00 04 16 0001 61", WRONG),
    "PUBACK of three bytes in 3.1.1": (V311, "40 03 0001 00", BAD),
    "PUBACK of one byte": (V5, "40 01 00", BAD),
    "PUBACK of identifier zero": (V5, "40 02 0000", WRONG),
    "PUBACK with a foreign reason": (V5, "40 03 0001 8e", BAD),
    "PUBREL of identifier zero": (V5, "62 02 0000", WRONG),
    "CONNACK with flags": (V311, "20 02 02 00", BAD),
    "CONNACK refusing with a session": (V311, "20 02 01 05", BAD),
    "CONNACK with return code 6": (V311, "20 02 00 06", BAD),
    "SUBSCRIBE without a filter": (V5, "82 03 0001 00", WRONG),
    "SUBSCRIBE with QoS 3": (V311, "82 06 0001 0001 61 03", BAD),
    "SUBSCRIBE with options in 3.1.1": (V311, "82 06 0001 0001 61 05", BAD),
    "SUBSCRIBE with retain handling 3": (V5, "82 07 0001 00 0001 61 31", BAD),
    "SUBSCRIBE with two identifiers": (V5, "82 0b 0001 04 0b 01 0b 02 0001 61 00", WRONG),
    "SUBSCRIBE to a bad filter": (V311, "82 07 0001 0002 2361 00", Reason.TOPIC_FILTER_INVALID),
    "UNSUBSCRIBE without a filter": (V311, "a2 02 0001", WRONG),
    "SUBACK without a reason": (V311, "90 02 0001", WRONG),
    "SUBACK with a foreign reason": (V311, "90 03 0001 87", BAD),
    "UNSUBACK with reasons in 3.1.1": (V311, "b0 03 0001 00", BAD),
    "DISCONNECT with a reason in 3.1.1": (V311, "e0 01 00", BAD),
    "DISCONNECT with a foreign reason": (V5, "e0 01 01", BAD),
}


@pytest.mark.parametrize("case", BYTES)
def test_refuses_bytes(case: str) -> None:
    version, literal, reason = BYTES[case]
    decoder = Decoder(version)
    decoder.feed(bytes.fromhex(literal))

    with pytest.raises(MqttProtocolError) as caught:
        decoder.next_packet()

    assert caught.value.reason is reason


PACKETS: dict[str, tuple[Version, Packet]] = {
    "NUL": (V5, Publish("a\0", b"")),
    "surrogate": (V5, Connect("\ud800")),
    "long string": (V5, Connect("x" * 65_536)),
    "wildcard": (V5, Publish("a/#", b"")),
    "empty topic": (V5, Publish("", b"")),
    "QoS 3": (V5, Publish("a", b"", 3, 1)),
    "QoS 1 without identifier": (V5, Publish("a", b"", 1)),
    "identifier with QoS 0": (V5, Publish("a", b"", 0, 1)),
    "duplicate with QoS 0": (V5, Publish("a", b"", dup=True)),
    "identifier zero": (V5, Puback(0)),
    "identifier too large": (V5, Puback(65_536)),
    "reason in 3.1.1": (V311, Puback(1, 0x83)),
    "foreign reason": (V5, Puback(1, 0x8E)),
    "properties in 3.1.1": (V311, Publish("a", b"", properties=Properties(topic_alias=1))),
    "property of another packet": (V5, Connect("d", properties=Properties(topic_alias=1))),
    "property flag of two": (V5, Connack(properties=Properties(maximum_qos=2))),
    "property too large": (V5, Connack(properties=Properties(server_keep_alive=65_536))),
    "interval too large": (V5, Connack(properties=Properties(session_expiry_interval=1 << 32))),
    "identifier property too large": (
        V5,
        Publish("a", b"", properties=Properties(subscription_identifiers=(268_435_456,))),
    ),
    "keep alive too large": (V5, Connect("d", keep_alive=65_536)),
    "password without user": (V311, Connect("d", password=b"p")),
    "will to a wildcard": (V311, Connect("d", will=Will("#", b""))),
    "will QoS 3": (V311, Connect("d", will=Will("w", b"", 3))),
    "session with a refusal": (V311, Connack(5, session_present=True)),
    "no filter": (V5, Subscribe(1, ())),
    "no filter to give back": (V5, Unsubscribe(1, ())),
    "bad filter": (V5, Unsubscribe(1, ("a#",))),
    "subscription QoS 3": (V5, Subscribe(1, (Subscription("a", 3),))),
    "option in 3.1.1": (V311, Subscribe(1, (Subscription("a", no_local=True),))),
    "no reasons": (V5, Suback(1, ())),
    "reasons in 3.1.1": (V311, Unsuback(1, (0,))),
    "AUTH in 3.1.1": (V311, Auth()),
    "DISCONNECT reason in 3.1.1": (V311, Disconnect(0x8B)),
}


@pytest.mark.parametrize("case", PACKETS)
def test_refuses_to_encode(case: str) -> None:
    version, packet = PACKETS[case]

    with pytest.raises(MqttProtocolError):
        encode(packet, version)
