from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tls_lab import make_authority

from agent.adapters.trust import (
    client_context,
    find_pinned_root,
    is_certificate_alert,
    pinned_context,
    verify_ed25519,
)
from protocol.errors import Code, DeniedError


def test_a_signature_holds_for_its_key_and_message_alone() -> None:
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    signature = key.sign(b"message")

    outcomes = [
        verify_ed25519(public, signature, b"message"),
        verify_ed25519(public, signature, b"Message"),
        verify_ed25519(other, signature, b"message"),
        verify_ed25519(public[:-1], signature, b"message"),
        verify_ed25519(public, signature[:-1], b"message"),
        verify_ed25519(public, b"", b"message"),
    ]

    assert outcomes == [True, False, False, False, False, False]


def test_the_pinned_root_is_found_among_others_and_returned_alone() -> None:
    wanted, other = make_authority("wanted"), make_authority("other")

    assert find_pinned_root((other.pem + wanted.pem).encode(), wanted.fingerprint) == wanted.pem


@pytest.mark.parametrize("pem", [b"", b"rubbish", b"\xff\xfe", make_authority().pem.encode()])
def test_without_the_pinned_root_nobody_is_trusted(pem: bytes) -> None:
    with pytest.raises(DeniedError) as caught:
        find_pinned_root(pem, make_authority().fingerprint)

    assert caught.value.code is Code.CERTIFICATE_INVALID


def test_a_context_trusts_only_what_it_was_given() -> None:
    context = pinned_context(make_authority().pem)

    assert len(context.get_ca_certs()) == 1
    assert context.check_hostname


def test_roots_that_cannot_be_read_have_an_error_with_a_hint() -> None:
    with pytest.raises(DeniedError) as caught:
        pinned_context("rubbish")

    assert caught.value.code is Code.CERTIFICATE_INVALID


def test_a_damaged_credential_has_an_error_with_a_hint(tmp_path: Path) -> None:
    authority = make_authority()
    path = authority.credential(tmp_path, "device")
    path.write_bytes(path.read_bytes()[:-200])

    with pytest.raises(DeniedError) as caught:
        client_context(authority.pem, path)

    assert "enroll" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca", True),
        ("[SSL: SSLV3_ALERT_CERTIFICATE_EXPIRED] sslv3 alert certificate expired", True),
        ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required", True),
        ("[SSL: SSLV3_ALERT_HANDSHAKE_FAILURE] sslv3 alert handshake failure", False),
        ("timed out", False),
    ],
)
def test_alerts_about_our_certificate_are_recognised(text: str, *, expected: bool) -> None:
    assert is_certificate_alert(text) is expected
