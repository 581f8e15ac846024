"""Round trips, arbitrary cuts, and hostile streams."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.mqtt import (
    Connect,
    Decoder,
    MqttProtocolError,
    Packet,
    Pingreq,
    Publish,
    Reason,
    Version,
    encode,
)
from tests.unit.protocol.mqtt.mqtt_strategies import packets, publishes, streams, versions


def drain(decoder: Decoder) -> list[Packet]:
    found: list[Packet] = []
    while (packet := decoder.next_packet()) is not None:
        found.append(packet)
    return found


@settings(max_examples=400)
@given(stream=streams)
def test_every_packet_comes_back(stream: tuple[Version, list[Packet]]) -> None:
    version, sent = stream
    decoder = Decoder(version)

    for packet in sent:
        before = decoder.version
        decoder.feed(encode(packet, before or version))
        assert drain(decoder) == [packet]

    assert decoder.buffered_bytes == 0


@given(stream=streams, sizes=st.lists(st.integers(1, 9), min_size=1))
def test_cuts_do_not_matter(stream: tuple[Version, list[Packet]], sizes: list[int]) -> None:
    version, sent = stream
    data = b"".join(encode(packet, version) for packet in sent)
    decoder = Decoder(version)
    found: list[Packet] = []

    at = 0
    for index in range(len(data)):
        if at >= len(data):
            break
        size = sizes[index % len(sizes)]
        decoder.feed(data[at : at + size])
        found += drain(decoder)
        at += size

    assert found == sent


@given(sent=st.lists(publishes(Version.V5), min_size=1, max_size=6), cut=st.integers(0, 400))
def test_packets_may_wait_in_the_decoder(sent: list[Publish], cut: int) -> None:
    data = b"".join(encode(packet, Version.V5) for packet in sent)
    decoder = Decoder(Version.V5)

    decoder.feed(data[:cut])
    first = decoder.next_packet()
    decoder.feed(data[cut:])

    assert [p for p in [first, *drain(decoder)] if p is not None] == sent


def outcome(decoder: Decoder, chunks: list[bytes]) -> tuple[list[Packet], str]:
    found: list[Packet] = []
    try:
        for chunk in chunks:
            decoder.feed(chunk)
            found += drain(decoder)
    except MqttProtocolError as error:
        return found, str(error)
    return found, ""


@settings(max_examples=1500)
@given(version=st.none() | versions, data=st.binary(max_size=80))
def test_garbage_is_refused_and_nothing_else(version: Version | None, data: bytes) -> None:
    outcome(Decoder(version, max_packet_bytes=4096), [data])


@settings(max_examples=1500)
@given(
    sample=versions.flatmap(lambda v: st.tuples(st.just(v), packets(v))),
    edits=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.integers(0, 400),
)
def test_a_damaged_packet_is_refused_and_nothing_else(
    sample: tuple[Version, Packet], edits: list[tuple[int, int]], cut: int
) -> None:
    version, packet = sample
    data = bytearray(encode(packet, version))
    for position, byte in edits:
        data[position % len(data)] = byte
    known = None if isinstance(packet, Connect) else version

    whole = outcome(Decoder(known), [bytes(data[:cut]), bytes(data[cut:])])
    single = outcome(Decoder(known), [bytes((byte,)) for byte in data])

    assert whole[0] == single[0] or whole[1]
    assert bool(whole[1]) == bool(single[1])


@given(sample=versions.flatmap(lambda v: st.tuples(st.just(v), packets(v))))
def test_what_was_decoded_encodes_again(sample: tuple[Version, Packet]) -> None:
    version, packet = sample
    data = encode(packet, version)
    decoder = Decoder(None if isinstance(packet, Connect) else version)
    decoder.feed(data)

    again = decoder.next_packet()

    assert again is not None
    assert encode(again, version) == data


def test_a_packet_of_exactly_the_limit_passes() -> None:
    data = encode(Publish("a", b"x" * 100), Version.V311)
    decoder = Decoder(Version.V311, max_packet_bytes=len(data))

    decoder.feed(data)

    assert decoder.next_packet() == Publish("a", b"x" * 100)


def test_a_packet_over_the_limit_is_refused_before_it_arrives() -> None:
    data = encode(Publish("a", b"x" * 100), Version.V311)
    decoder = Decoder(Version.V311, max_packet_bytes=len(data) - 1)

    decoder.feed(data[:2])

    with pytest.raises(MqttProtocolError) as caught:
        decoder.next_packet()
    assert caught.value.reason is Reason.PACKET_TOO_LARGE


def test_packets_before_the_damage_are_delivered() -> None:
    decoder = Decoder(Version.V5)
    decoder.feed(b"\xc0\x00\x00")

    assert decoder.next_packet() == Pingreq()
    with pytest.raises(MqttProtocolError):
        decoder.next_packet()


def test_stays_broken_after_the_first_error() -> None:
    decoder = Decoder(Version.V5)
    decoder.feed(b"\x00")
    with pytest.raises(MqttProtocolError):
        decoder.next_packet()

    decoder.feed(b"\xc0\x00")

    with pytest.raises(MqttProtocolError):
        decoder.next_packet()


def test_learns_the_version_from_connect() -> None:
    decoder = Decoder()
    decoder.feed(encode(Connect("d1"), Version.V5) + encode(Pingreq(), Version.V5))

    assert decoder.version is None
    assert drain(decoder) == [Connect("d1"), Pingreq()]
    assert decoder.version is Version.V5


def test_a_large_packet_in_tiny_pieces_is_copied_once() -> None:
    data = encode(Publish("a", b"x" * 300_000), Version.V311)
    decoder = Decoder(Version.V311)

    for at in range(0, len(data), 16):
        decoder.feed(data[at : at + 16])
        packet = decoder.next_packet()
        assert (packet is None) == (at + 16 < len(data))


def test_a_stream_keeps_its_version() -> None:
    decoder = Decoder(Version.V311)
    decoder.feed(encode(Connect("d1"), Version.V5))

    with pytest.raises(MqttProtocolError) as caught:
        decoder.next_packet()
    assert caught.value.reason is Reason.PROTOCOL_ERROR
