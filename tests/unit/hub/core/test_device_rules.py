"""A device's trust, claims, tokens: who may do what, and the words when they may not."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

from hub_lab import code_of

from hub.core.device import (
    Claim,
    Device,
    DeviceState,
    check_free,
    check_issued,
    claim_token,
    hash_secret,
)
from protocol.ids import DeviceId

AT = datetime(2030, 1, 1, tzinfo=UTC)
DEVICE = Device(DeviceId("press-7"), "generic-x86", DeviceState.ENROLLED, AT, connected=True)
CLAIM = Claim("00", DeviceId("press-7"), {}, AT + timedelta(hours=1))


def test_an_enrolled_device_is_trusted() -> None:
    DEVICE.check_trusted()


def test_a_retired_device_is_neither_trusted_nor_connected() -> None:
    retired = DEVICE.retired()

    assert not retired.connected
    assert code_of(retired.check_trusted) == "certificate-invalid"


def test_a_certificate_of_the_device_before_is_refused_to_the_second() -> None:
    enrolled = AT + timedelta(microseconds=900_000)  # certificates have whole seconds

    check_issued(DEVICE.id, AT, enrolled)
    check_issued(DEVICE.id, AT + timedelta(days=3), enrolled)
    earlier = AT - timedelta(seconds=1)
    assert code_of(lambda: check_issued(DEVICE.id, earlier, enrolled)) == "certificate-invalid"


def test_a_claim_is_used_once() -> None:
    used = CLAIM.use(AT)

    assert used.used_at == AT
    assert code_of(lambda: used.use(AT)) == "claim-invalid"


def test_a_claim_expires() -> None:
    end = AT + timedelta(hours=1)
    last = end - timedelta(seconds=1)

    assert CLAIM.use(last).used_at == last
    assert code_of(lambda: CLAIM.use(end)) == "claim-invalid"


def test_an_id_is_free_until_it_is_enrolled_and_again_after_it_was_retired() -> None:
    check_free(None)
    check_free(DEVICE.retired())
    assert code_of(lambda: check_free(DEVICE)) == "device-exists"


def test_secrets_are_kept_as_their_hash() -> None:
    assert hash_secret("secret") == (
        "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
    )


def test_a_claim_token_says_where_whom_to_trust_and_the_secret() -> None:
    version, url, fingerprint, secret = claim_token("https://h:1", "ab" * 32, "s-_").split(".")

    assert (version, fingerprint, secret) == ("rw1", "ab" * 32, "s-_")
    assert base64.urlsafe_b64decode(url + "=" * (-len(url) % 4)) == b"https://h:1"
