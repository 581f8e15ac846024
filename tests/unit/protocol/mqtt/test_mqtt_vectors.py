"""Literal bytes of every packet in both versions, written from the standard's tables."""

from __future__ import annotations

import pytest

from protocol.mqtt import (
    Auth,
    Connack,
    Connect,
    Decoder,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
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
ALL_CONNECT = Properties(
    session_expiry_interval=10,
    authentication_method="m",
    authentication_data=b"d",
    request_problem_information=0,
    request_response_information=1,
    receive_maximum=32,
    topic_alias_maximum=0,
    user_properties=(("k", "v"), ("k", "w")),
    maximum_packet_size=1024,
)
ALL_PUBLISH = Properties(
    payload_format_indicator=1,
    message_expiry_interval=60,
    content_type="t",
    response_topic="r",
    correlation_data=b"\x01",
    subscription_identifiers=(1, 321),
    topic_alias=7,
)
ALL_CONNACK = Properties(
    session_expiry_interval=0,
    assigned_client_identifier="a",
    server_keep_alive=30,
    response_information="i",
    server_reference="s",
    reason_string="r",
    maximum_qos=1,
    retain_available=0,
    wildcard_subscription_available=1,
    subscription_identifier_available=0,
    shared_subscription_available=0,
)
WILL = Will("w", b"gone", qos=1, retain=True)
DELAYED = Will("w", b"gone", qos=2, properties=Properties(will_delay_interval=5))

VECTORS: list[tuple[Version, Packet, str]] = [
    (V311, Connect("d1"), "10 0e 0004 4d515454 04 02 003c 0002 6431"),
    (
        V311,
        Connect("d1", False, 0, "u", b"p", WILL),  # noqa: FBT003 - clean start
        "10 1d 0004 4d515454 04 ec 0000 0002 6431 0001 77 0004 676f6e65 0001 75 0001 70",
    ),
    (V5, Connect("d1"), "10 0f 0004 4d515454 05 02 003c 00 0002 6431"),
    (
        V5,
        Connect("", True, 60, None, b"p", DELAYED),  # noqa: FBT003 - clean start
        "10 1f 0004 4d515454 05 56 003c 00 0000 05 18 00000005 0001 77 0004 676f6e65 0001 70",
    ),
    (
        V5,
        Connect("d", properties=ALL_CONNECT),
        (
            "10 38 0004 4d515454 05 02 003c 2a 11 0000000a 15 0001 6d 16 0001 64 17 00 19 01"
            "21 0020 22 0000 26 0001 6b 0001 76 26 0001 6b 0001 77 27 00000400 0001 64"
        ),
    ),
    (V311, Connack(), "20 02 00 00"),
    (V311, Connack(5), "20 02 00 05"),
    (V311, Connack(0, session_present=True), "20 02 01 00"),
    (V5, Connack(), "20 03 00 00 00"),
    (V5, Connack(Reason.NOT_AUTHORIZED), "20 03 00 87 00"),
    (
        V5,
        Connack(properties=ALL_CONNACK),
        (
            "20 25 00 00 22 11 00000000 12 0001 61 13 001e 1a 0001 69 1c 0001 73 1f 0001 72"
            "24 01 25 00 28 01 29 00 2a 00"
        ),
    ),
    (V311, Publish("a/b", b"hi"), "30 07 0003 612f62 6869"),
    (V311, Publish("a", b"", 1, 10, retain=True, dup=True), "3b 05 0001 61 000a"),
    (V311, Publish("a", b"x", 2, 65535), "34 06 0001 61 ffff 78"),
    (V5, Publish("a/b", b"hi", 1, 1), "32 0a 0003 612f62 0001 00 6869"),
    (
        V5,
        Publish("", b"", 1, 1, properties=ALL_PUBLISH),
        (
            "32 20 0000 0001 1b 01 01 02 0000003c 03 0001 74 08 0001 72 09 0001 01 0b 01 0b c102"
            "23 0007"
        ),
    ),
    (V311, Puback(258), "40 02 0102"),
    (V5, Puback(258), "40 02 0102"),
    (V5, Puback(258, Reason.QUOTA_EXCEEDED), "40 03 0102 97"),
    (
        V5,
        Puback(1, 0x83, Properties(reason_string="no")),
        "40 09 0001 83 05 1f 0002 6e6f",
    ),
    (V311, Pubrec(1), "50 02 0001"),
    (V5, Pubrec(1, Reason.NO_MATCHING_SUBSCRIBERS), "50 03 0001 10"),
    (V311, Pubrel(1), "62 02 0001"),
    (V5, Pubrel(1, Reason.PACKET_IDENTIFIER_NOT_FOUND), "62 03 0001 92"),
    (V311, Pubcomp(1), "70 02 0001"),
    (V5, Pubcomp(1), "70 02 0001"),
    (
        V311,
        Subscribe(1, (Subscription("a/#", 1), Subscription("+"))),
        "82 0c 0001 0003 612f23 01 0001 2b 00",
    ),
    (
        V5,
        Subscribe(
            1,
            (Subscription("a", 1, no_local=True, retain_as_published=True, retain_handling=2),),
            Properties(subscription_identifiers=(5,)),
        ),
        "82 09 0001 02 0b 05 0001 61 2d",
    ),
    (V311, Suback(1, (0, 1, 2, 128)), "90 06 0001 00 01 02 80"),
    (V5, Suback(1, (1, 0x87)), "90 05 0001 00 01 87"),
    (V311, Unsubscribe(2, ("a", "b/#")), "a2 0a 0002 0001 61 0003 622f23"),
    (V5, Unsubscribe(2, ("a",)), "a2 06 0002 00 0001 61"),
    (V311, Unsuback(2), "b0 02 0002"),
    (V5, Unsuback(2, (0, 0x11)), "b0 05 0002 00 00 11"),
    (V311, Pingreq(), "c0 00"),
    (V5, Pingresp(), "d0 00"),
    (V311, Disconnect(), "e0 00"),
    (V5, Disconnect(), "e0 00"),
    (V5, Disconnect(Reason.SERVER_SHUTTING_DOWN), "e0 01 8b"),
    (
        V5,
        Disconnect(0x9C, Properties(server_reference="s")),
        "e0 06 9c 04 1c 0001 73",
    ),
    (V5, Auth(), "f0 00"),
    (
        V5,
        Auth(Reason.CONTINUE_AUTHENTICATION, Properties(authentication_method="m")),
        "f0 06 18 04 15 0001 6d",
    ),
]


@pytest.mark.parametrize(("version", "packet", "literal"), VECTORS)
def test_encodes_to_the_literal_bytes(version: Version, packet: Packet, literal: str) -> None:
    assert encode(packet, version).hex() == bytes.fromhex(literal).hex()


@pytest.mark.parametrize(("version", "packet", "literal"), VECTORS)
def test_decodes_the_literal_bytes(version: Version, packet: Packet, literal: str) -> None:
    decoder = Decoder(None if isinstance(packet, Connect) else version)

    decoder.feed(bytes.fromhex(literal))

    assert decoder.next_packet() == packet
    assert decoder.version is version
    assert decoder.next_packet() is None


def test_a_long_packet_has_a_long_length() -> None:
    data = encode(Publish("a", b"x" * 200), Version.V311)

    assert data[:6].hex() == "30cb01" + "000161"


def test_accepts_an_acknowledgement_with_an_empty_property_list() -> None:
    decoder = Decoder(Version.V5)

    decoder.feed(bytes.fromhex("40 04 0001 00 00"))

    assert decoder.next_packet() == Puback(1)


def test_properties_show_only_what_is_present() -> None:
    assert repr(Properties(topic_alias=3)) == "Properties(topic_alias=3)"
