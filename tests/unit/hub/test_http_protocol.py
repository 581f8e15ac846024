"""The hub's HTTPS connections: the certificate in the scope, and the end of those who dawdle."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from https_lab import serve_https
from hub_lab import DEVICE_KEY, csr, der

from hub.adapters.clock import SystemClock
from hub.adapters.pki import DiskAuthority
from hub.http_protocol import HubHttpProtocol
from protocol.ids import DeviceId

REQUEST = b"POST /%s HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n"


class Impatient(HubHttpProtocol):
    header_seconds = 0.4
    body_stall_seconds = 0.4


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Read the body, sleep as long as the path says, answer what the connection shows."""
    assert scope["type"] == "http"
    before, after = (float(part) for part in scope["path"].strip("/").split("/"))
    await asyncio.sleep(before)
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message["more_body"]:
            break
    await asyncio.sleep(after)
    chain = scope["extensions"]["tls"]["client_cert_chain"]
    body = json.dumps({"chain": list(chain), "size": size}).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> DiskAuthority:
    return DiskAuthority(tmp_path_factory.mktemp("pki") / "keys", SystemClock())


@pytest.fixture(scope="module")
def port(authority: DiskAuthority) -> Iterator[int]:
    tls = authority.server_context(["127.0.0.1"], require_client=False)
    with serve_https(app, tls, Impatient) as port:
        yield port


class Caller:
    """One TLS connection."""

    def __init__(self, authority: DiskAuthority, port: int, credential: Path | None = None) -> None:
        context = ssl.create_default_context(cadata=authority.roots_pem())
        if credential:
            context.load_cert_chain(credential)
        plain = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.tls = context.wrap_socket(plain, server_hostname="127.0.0.1")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.tls.close()

    def send(self, data: bytes) -> None:
        self.tls.sendall(data)

    def answer(self) -> dict[str, Any] | None:
        """Return the body of the answer, or None when the hub closed the connection."""
        raw = b""
        try:
            while b"\r\n\r\n" not in raw or not raw.endswith(b"}"):
                piece = self.tls.recv(65536)
                if not piece:
                    return None
                raw += piece
        except (ConnectionError, ssl.SSLError):
            return None
        found: dict[str, Any] = json.loads(raw.partition(b"\r\n\r\n")[2])
        return found

    def trickle(self, data: bytes, pause: float) -> bool:
        """Send byte by byte; tell whether the hub took them all."""
        try:
            for number in range(len(data)):
                self.send(data[number : number + 1])
                time.sleep(pause)
        except (ConnectionError, ssl.SSLError):
            return False
        return True


def test_the_certificate_of_the_caller_is_in_the_scope(
    authority: DiskAuthority, port: int, tmp_path: Path
) -> None:
    chain = authority.issue(csr(), DeviceId("press-7"))
    key = DEVICE_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    (tmp_path / "device.pem").write_text(key + chain)

    with Caller(authority, port, tmp_path / "device.pem") as caller:
        for _ in range(2):
            caller.send(REQUEST % (b"0/0", 0))
            answer = caller.answer()
            assert answer is not None
            (shown,) = answer["chain"]
            assert ssl.PEM_cert_to_DER_cert(shown) == der(chain)


def test_without_a_certificate_the_scope_shows_none(authority: DiskAuthority, port: int) -> None:
    with Caller(authority, port) as caller:
        caller.send(REQUEST % (b"0/0", 0))
        assert caller.answer() == {"chain": [], "size": 0}


def test_who_says_nothing_is_closed(authority: DiskAuthority, port: int) -> None:
    with Caller(authority, port) as caller:
        assert caller.answer() is None


def test_a_half_sent_header_is_closed(authority: DiskAuthority, port: int) -> None:
    with Caller(authority, port) as caller:
        caller.send((REQUEST % (b"0/0", 0))[:-2])
        assert caller.answer() is None


def test_a_trickled_header_buys_no_time(authority: DiskAuthority, port: int) -> None:
    with Caller(authority, port) as caller:
        took_all = caller.trickle(REQUEST % (b"0/0", 0), 0.05)
        assert not took_all or caller.answer() is None


def test_the_second_request_of_a_connection_has_its_limit_too(
    authority: DiskAuthority, port: int
) -> None:
    with Caller(authority, port) as caller:
        caller.send(REQUEST % (b"0/0", 0))
        assert caller.answer()
        caller.send(b"POST ")
        assert caller.answer() is None


def test_a_stalled_body_is_closed(authority: DiskAuthority, port: int) -> None:
    with Caller(authority, port) as caller:
        caller.send(REQUEST % (b"0/0", 10) + b"half")
        assert caller.answer() is None


def test_a_slow_body_that_moves_is_taken(authority: DiskAuthority, port: int) -> None:
    with Caller(authority, port) as caller:
        caller.send(REQUEST % (b"0/0", 12))
        assert caller.trickle(b"x" * 12, 0.1)
        assert caller.answer() == {"chain": [], "size": 12}


def test_a_slow_handler_is_waited_for(authority: DiskAuthority, port: int) -> None:
    with Caller(authority, port) as caller:
        caller.send(REQUEST % (b"0/1.0", 4) + b"body")
        assert caller.answer() == {"chain": [], "size": 4}


def test_a_caller_is_not_blamed_while_the_hub_does_not_read(
    authority: DiskAuthority, port: int
) -> None:
    body = b"x" * 4_000_000
    with Caller(authority, port) as caller:
        caller.send(REQUEST % (b"1.0/0", len(body)))
        caller.send(body)
        assert caller.answer() == {"chain": [], "size": len(body)}
