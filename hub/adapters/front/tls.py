"""TLS facts the front needs: who the peer is, and how much memory a connection takes."""

from __future__ import annotations

import ssl
from asyncio import sslproto
from typing import TYPE_CHECKING, cast

from hub.adapters.front.dialect import Peer

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

_RECORD_BYTES = 16 * 1024


def server_context(certificate: Path, key: Path, client_roots: Path) -> ssl.SSLContext:
    """Return a context that presents `certificate` and demands clients of `client_roots`.

    TLS 1.2 is allowed because the IoT Hub SDK speaks nothing newer. No session tickets: the
    clients never resume, and making tickets costs a quarter of a handshake.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(client_roots)
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0
    return context


def shrink_tls_buffers() -> None:
    """Make asyncio read TLS in records instead of 256 KiB pieces.

    The standard library allocates and touches that much for every connection, idle or not
    (measured: 290 KiB per device, 49 KiB after this). The attribute is private, so its absence is
    no error; uvloop has its own implementation and shares one buffer.
    """
    if isinstance(getattr(sslproto.SSLProtocol, "max_size", None), int):
        sslproto.SSLProtocol.max_size = _RECORD_BYTES


def peer_of(transport: asyncio.BaseTransport) -> Peer | None:
    """Return who the verified client certificate names; None without exactly one common name."""
    ssl_object = transport.get_extra_info("ssl_object")
    if not isinstance(ssl_object, ssl.SSLObject):
        return None
    certificate = ssl_object.getpeercert()
    encoded = ssl_object.getpeercert(binary_form=True)
    # the dictionary is empty when the certificate was not verified
    if not certificate or encoded is None:
        return None
    # the type of the dictionary's values is wider than what `subject` holds
    subject = cast("tuple[tuple[tuple[str, str], ...], ...]", certificate.get("subject", ()))
    names = [value for part in subject for key, value in part if key == "commonName"]
    return Peer(names[0], encoded) if len(names) == 1 else None
