"""Signed documents: what a signature covers, and every way it can fail to hold."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hostile import each_document, raises_only_ours
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec, dsse
from protocol.errors import Code, DeniedError, InvalidError
from protocol.messages import DesiredGet, Envelope, Signature

KIND = "application/example+json"
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
KEYS = {"k1": PRIVATE.public_key().public_bytes_raw()}


def verify(key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def opened(raw: bytes) -> bytes:
    return dsse.open_envelope(raw, KIND, KEYS, verify)


def test_encodes_like_the_specification_says() -> None:
    encoded = dsse.pre_authentication_encoding("http://example.com/HelloWorld", b"hello world")

    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_counts_the_bytes_of_a_type_not_its_letters() -> None:
    assert dsse.pre_authentication_encoding("ä", b"") == b"DSSEv1 2 \xc3\xa4 0 "


@given(st.binary(max_size=200))
def test_a_sealed_payload_comes_back(payload: bytes) -> None:
    assert opened(dsse.seal(KIND, payload, "k1", PRIVATE.sign)) == payload


@given(payload=st.binary(max_size=40), position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed(payload: bytes, position: int, bit: int) -> None:
    raw = bytearray(dsse.seal(KIND, payload, "k1", PRIVATE.sign))
    raw[position % len(raw)] ^= 1 << bit

    try:
        survived = opened(bytes(raw))
    except (DeniedError, InvalidError):
        return
    assert survived == payload  # base64's unused last bits, and the letter case of `\u` escapes


def test_another_type_is_refused() -> None:
    raw = dsse.seal("application/other", b"{}", "k1", PRIVATE.sign)

    with pytest.raises(DeniedError, match="'application/other' came instead of") as caught:
        opened(raw)
    assert caught.value.code is Code.SIGNATURE_INVALID


def test_a_signature_for_another_type_does_not_hold() -> None:
    sealed = codec.decode(dsse.seal("application/other", b"{}", "k1", PRIVATE.sign), Envelope)
    relabelled = codec.encode(Envelope(KIND, sealed.payload, sealed.signatures))

    with pytest.raises(DeniedError, match="no signature"):
        opened(relabelled)


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(DeniedError, match="no signature of the document verifies"):
        opened(dsse.seal(KIND, b"{}", "k2", PRIVATE.sign))


def test_a_known_key_id_with_a_foreign_key_is_refused() -> None:
    with pytest.raises(DeniedError, match="no signature of the document verifies"):
        opened(dsse.seal(KIND, b"{}", "k1", OTHER.sign))


def test_one_of_several_signatures_is_enough() -> None:
    message = dsse.pre_authentication_encoding(KIND, b"{}")
    signatures = [
        Signature("k2", OTHER.sign(message)),
        Signature("k1", OTHER.sign(message)),
        Signature("k1", PRIVATE.sign(message)),
    ]

    assert opened(codec.encode(Envelope(KIND, b"{}", signatures))) == b"{}"


@pytest.mark.parametrize("count", [0, 9])
def test_an_envelope_has_one_to_eight_signatures(count: int) -> None:
    raw = codec.encode(Envelope(KIND, b"{}", [Signature("k1", b"")] * count))

    with pytest.raises(InvalidError) as caught:
        opened(raw)
    assert caught.value.code is Code.MESSAGE_INVALID


@each_document
def test_hostile_bytes_are_refused(raw: bytes) -> None:
    raises_only_ours(opened, raw)


@each_document
def test_hostile_payloads_are_refused_although_the_signature_holds(raw: bytes) -> None:
    payload = opened(dsse.seal(KIND, raw, "k1", PRIVATE.sign))

    raises_only_ours(lambda data: dsse.read_payload(data, DesiredGet), payload)


def test_reads_a_payload() -> None:
    assert dsse.read_payload(b'{"epoch":1,"have":3}', DesiredGet) == DesiredGet(1, 3)


def test_refuses_a_key_that_stands_twice() -> None:
    with pytest.raises(InvalidError, match="stands twice"):
        dsse.read_payload(b'{"have":3,"have":4}', DesiredGet)


def test_an_envelope_has_a_limit() -> None:
    with pytest.raises(InvalidError) as caught:
        opened(b" " * (dsse.MAX_ENVELOPE_BYTES + 1))
    assert caught.value.code is Code.TOO_LARGE
