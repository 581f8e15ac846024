"""Which desired states a device accepts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from agent_world import (
    DEVICE,
    DIRECTOR,
    KEY_ID,
    START,
    STRANGER,
    desired,
    envelope,
    manifest,
    module,
    trust,
)
from hypothesis import given
from hypothesis import strategies as st

from agent.core.desired import Trust, Version, accept
from protocol import codec, dsse
from protocol.errors import Code, FleetError
from protocol.messages import DESIRED_TYPE, Envelope

FLOOR = Version(2, 5)


def refused(raw: bytes, *, now: datetime = START, believer: Trust | None = None) -> Code:
    with pytest.raises(FleetError) as caught:
        accept(raw, believer or trust(), FLOOR, now)
    return caught.value.code


def test_a_newer_document_is_accepted_with_what_it_asks_for() -> None:
    accepted = accept(envelope(desired(6, epoch=2)), trust(), FLOOR, START)

    assert accepted is not None
    assert (accepted.version, accepted.deployment) == (Version(2, 6), "deployment-6")
    assert [spec.image.digest for spec in accepted.specs.values()] == [f"sha256:{6:064x}"]


def test_a_higher_epoch_is_newer_whatever_its_version() -> None:
    accepted = accept(envelope(desired(1, epoch=3)), trust(), FLOOR, START)

    assert accepted is not None
    assert accepted.version == Version(3, 1)


def test_the_document_held_already_is_no_news() -> None:
    assert accept(envelope(desired(5, epoch=2)), trust(), FLOOR, START) is None


def test_the_document_of_the_floor_is_taken_again_when_it_was_lost() -> None:
    again = accept(envelope(desired(5, epoch=2)), trust(), FLOOR, START, held=False)

    assert again is not None
    assert again.version == FLOOR


@pytest.mark.parametrize(("epoch", "version"), [(2, 4), (1, 99)])
def test_an_older_document_is_refused(epoch: int, version: int) -> None:
    assert refused(envelope(desired(version, epoch=epoch))) is Code.VERSION_ROLLED_BACK


def test_an_older_document_is_refused_even_when_nothing_is_held() -> None:
    with pytest.raises(FleetError) as caught:
        accept(envelope(desired(4, epoch=2)), trust(), FLOOR, START, held=False)

    assert caught.value.code is Code.VERSION_ROLLED_BACK


def test_an_expired_document_is_refused_and_the_last_second_still_counts() -> None:
    raw = envelope(desired(6, epoch=2, life_seconds=60))
    end = START + timedelta(seconds=60)

    assert accept(raw, trust(), FLOOR, end) is not None
    assert refused(raw, now=end + timedelta(seconds=1)) is Code.DOCUMENT_EXPIRED


def tampered(raw: bytes) -> bytes:
    sealed = codec.decode(raw, Envelope)
    payload = sealed.payload.replace(b"deployment-6", b"deployment-9")
    return codec.encode(Envelope(sealed.payload_type, payload, sealed.signatures))


def of_another_type(raw: bytes) -> bytes:
    sealed = codec.decode(raw, Envelope)
    return codec.encode(Envelope("text/plain", sealed.payload, sealed.signatures))


def doubled() -> bytes:
    payload = codec.encode(desired(6, epoch=2)).replace(b'"version":6', b'"version":6,"version":7')
    return dsse.seal(DESIRED_TYPE, payload, KEY_ID, DIRECTOR.sign)


BAD: dict[str, tuple[Callable[[], bytes], Code]] = {
    "for another device": (
        lambda: envelope(desired(6, epoch=2, device="pi-8")),
        Code.SIGNATURE_INVALID,
    ),
    "signed by a stranger": (
        lambda: envelope(desired(6, epoch=2), key=STRANGER),
        Code.SIGNATURE_INVALID,
    ),
    "signed with an unknown key": (
        lambda: envelope(desired(6, epoch=2), key_id="director-9"),
        Code.SIGNATURE_INVALID,
    ),
    "tampered with": (lambda: tampered(envelope(desired(6, epoch=2))), Code.SIGNATURE_INVALID),
    "another type": (
        lambda: of_another_type(envelope(desired(6, epoch=2))),
        Code.SIGNATURE_INVALID,
    ),
    "unsigned": (lambda: codec.encode(desired(6, epoch=2)), Code.MESSAGE_INVALID),
    "no envelope": (lambda: b"{}", Code.MESSAGE_INVALID),
    "duplicate keys": (doubled, Code.MESSAGE_INVALID),
    "a manifest that is none": (
        lambda: envelope(desired(6, epoch=2, content={"modulesContent": {}})),
        Code.MANIFEST_INVALID,
    ),
    "an image that is none": (
        lambda: envelope(
            desired(
                6,
                epoch=2,
                content=manifest({"digits": module(1, settings={"image": "Not An Image"})}),
            )
        ),
        Code.ID_INVALID,
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_document_is_refused_that_is(name: str) -> None:
    make, code = BAD[name]

    assert refused(make()) is code


def test_a_key_that_is_no_longer_trusted_signs_nothing() -> None:
    believer = replace(trust(DEVICE), keys={})

    assert refused(envelope(desired(6, epoch=2)), believer=believer) is Code.SIGNATURE_INVALID


versions = st.builds(Version, st.integers(1, 4), st.integers(1, 4))


@given(floor=versions, offered=versions)
def test_accepted_is_exactly_what_is_beyond_the_floor(floor: Version, offered: Version) -> None:
    raw = envelope(desired(offered.version, epoch=offered.epoch))

    if offered < floor:
        with pytest.raises(FleetError, match="older"):
            accept(raw, trust(), floor, START)
    else:
        accepted = accept(raw, trust(), floor, START)
        assert (accepted is None) is (offered == floor)
        assert accepted is None or accepted.version == offered


@given(st.data())
def test_no_flipped_byte_of_a_document_is_accepted_with_other_content(data: st.DataObject) -> None:
    raw = envelope(desired(6, epoch=2))
    place = data.draw(st.integers(0, len(raw) - 1))
    damaged = raw[:place] + bytes([raw[place] ^ data.draw(st.integers(1, 255))]) + raw[place + 1 :]

    try:
        accepted = accept(damaged, trust(), FLOOR, START)
    except FleetError:
        return
    assert accepted == accept(raw, trust(), FLOOR, START)
