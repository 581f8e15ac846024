"""Whom this device trusts, in terms of keys and TLS: signatures, pinned roots, client contexts.

The system's certificate store is never consulted: a device trusts its own hub and nobody else.
"""

from __future__ import annotations

import hashlib
import hmac
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from protocol.errors import Code, DeniedError

MAX_ROOTS = 8


class PlainSpeakingSocket(ssl.SSLSocket):
    """Closes itself when the handshake fails, and passes on why the peer hung up."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - the base's
        """Perform the handshake, see ssl.SSLSocket."""
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise

    def send(self, data: Any, flags: int = 0) -> int:
        """Send, see ssl.SSLSocket; when the peer is gone, raise the alert it left, if it did."""
        try:
            return super().send(data, flags)
        except (ssl.SSLEOFError, ConnectionError):
            # With TLS 1.3 a refused certificate shows after the handshake: the peer has said why
            # and closed. Its reason waits to be read, the failed write tells nothing.
            with suppress(ssl.SSLWantReadError, ssl.SSLEOFError, ConnectionError, TimeoutError):
                self.recv(1)
            raise


def verify_ed25519(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Tell whether `signature` holds; a malformed key or signature does not. See dsse.Verify."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def find_pinned_root(ca_pem: bytes, fingerprint: str) -> str:
    """Return, as PEM, the one certificate in `ca_pem` whose DER has the SHA-256 `fingerprint`.

    Raises:
        DeniedError: `certificate-invalid`, when there is none.
    """
    for certificate in _certificates(ca_pem):
        found = hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
        if hmac.compare_digest(found, fingerprint):
            return certificate.public_bytes(Encoding.PEM).decode()
    raise DeniedError(
        "the hub's root certificate is not the one the claim token pins",
        code=Code.CERTIFICATE_INVALID,
        hint="the answer may come from another machine: check the hub's address, ask for a new "
        "claim token: `rimward device invite`",
    )


def pinned_context(ca_pem: str) -> ssl.SSLContext:
    """Return a client context that accepts certificates under `ca_pem` for the host's name only.

    Raises:
        DeniedError: `certificate-invalid`, when `ca_pem` holds no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks chain and host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = PlainSpeakingSocket
    try:
        context.load_verify_locations(cadata=ca_pem)
    except (ssl.SSLError, ValueError) as error:
        raise DeniedError(
            "the hub's root certificate cannot be read",
            code=Code.CERTIFICATE_INVALID,
            hint="enrol the device again: `rimward-agent enroll --claim ...`",
        ) from error
    return context


def client_context(ca_pem: str, credential: Path) -> ssl.SSLContext:
    """Return a pinned context that shows this device's certificate.

    Args:
        ca_pem: Roots that vouch for the hub.
        credential: PEM file with the private key and the certificate chain, leaf first.

    Raises:
        DeniedError: `certificate-invalid`, when the file is gone, damaged, or its halves differ.
    """
    context = pinned_context(ca_pem)
    try:
        context.load_cert_chain(credential)
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise DeniedError(
            f"the device's key and certificate in {str(credential)!r} cannot be used",
            code=Code.CERTIFICATE_INVALID,
            hint=f"remove {str(credential.parent)!r}, then `rimward-agent enroll --claim ...`",
        ) from error
    return context


def is_certificate_alert(text: str) -> bool:
    """Tell whether OpenSSL's words for a TLS failure mean: the other side refused ours."""
    upper = text.upper().replace(" ", "_")
    return "ALERT" in upper and any(
        word in upper for word in ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "BAD_CERT")
    )


def _certificates(ca_pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(ca_pem)[:MAX_ROOTS]
    except ValueError:
        return []
