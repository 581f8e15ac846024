"""What MQTT tests share: certificates, a recording bus handler, and clients of both kinds."""

from __future__ import annotations

import asyncio
import importlib
import socket
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hub.adapters.front.tls import server_context
from protocol.errors import Code, DeniedError, FleetError
from protocol.ids import DeviceId
from protocol.mqtt import Connect, Decoder, Packet, Version, encode
from protocol.topics import UpKind, down_filter, up_topic

# the installed stubs describe version 1 of paho, these tests use version 2
paho: Any = importlib.import_module("paho.mqtt.client")
LIMIT_SECONDS = 15.0
HUB_NAME = "rimward.hub"


class Pki:
    """A certificate authority in a folder; files are made when first asked for."""

    def __init__(self, folder: Path, name: str = "test root") -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._root = (
            _begin(subject, subject, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.roots = folder / "roots.pem"
        self.roots.write_bytes(self._root.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Return files with a certificate for `name` and its key."""
        certificate, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        if not certificate.exists():
            private = ec.generate_private_key(ec.SECP256R1())
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
            issued = (
                _begin(subject, self._root.subject, private)
                .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
                .add_extension(_usage(signs=False), critical=True)
                .add_extension(
                    x509.ExtendedKeyUsage(
                        [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
                    ),
                    critical=False,
                )
                .add_extension(
                    x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False
                )
                .sign(self._key, hashes.SHA256())
            )
            certificate.write_bytes(issued.public_bytes(serialization.Encoding.PEM))
            key.write_bytes(
                private.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
        return certificate, key

    def der(self, name: str) -> bytes:
        """Return the certificate of `name` as it crosses the wire."""
        return ssl.PEM_cert_to_DER_cert(self.issue(name)[0].read_text())

    @cached_property
    def server(self) -> ssl.SSLContext:
        """A context that asks for client certificates of this authority."""
        return server_context(*self.issue("server"), self.roots)

    def client(self, name: str | None, *, trusts: Pki | None = None) -> ssl.SSLContext:
        """A client context with the certificate of `name`, if any."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations((trusts or self).roots)
        if name is not None:
            context.load_cert_chain(*self.issue(name))
        return context


def _begin(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> Any:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=signs, crl_sign=signs,
        content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def free_port() -> int:
    """Return a port nobody listens on at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def until(condition: Callable[[], object]) -> None:
    """Wait until `condition()` holds; fail after LIMIT_SECONDS."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while not condition():  # noqa: ASYNC110 - conditions of clients in other threads too
            await asyncio.sleep(0.005)


class Recorder:
    """A bus handler that writes down what it is told; bodies steer it.

    `refuse` is refused for good, `fail` fails once and is processed when it comes again,
    `fail for ever` always fails, `wait` waits until `gate` is opened. `faults` names what raises,
    or, for `authorize`, waits for the gate.
    """

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.messages: list[tuple[str, UpKind, bytes]] = []
        self.started: list[bytes] = []
        self.banned: set[str] = set()
        self.undecided: set[str] = set()
        self.faults: set[str] = set()
        self.gate = asyncio.Event()
        self.certificates: dict[str, bytes] = {}
        self._failed: set[bytes] = set()

    async def authorize(self, device: DeviceId, certificate_der: bytes) -> None:
        self.certificates[device] = certificate_der
        if "authorize" in self.faults:
            await self.gate.wait()
        if device in self.undecided:
            raise OSError("the database is away")
        if device in self.banned:
            raise DeniedError(f"{device!r} is revoked", code=Code.CERTIFICATE_INVALID)

    async def connected(self, device: DeviceId) -> None:
        self.events.append(("connected", device))
        if "connected" in self.faults:
            raise OSError("the database is away")

    async def disconnected(self, device: DeviceId) -> None:
        self.events.append(("disconnected", device))
        if "disconnected" in self.faults:
            raise OSError("the database is away")

    async def message(self, device: DeviceId, kind: UpKind, body: bytes) -> None:
        if kind is UpKind.STATUS:
            return
        self.started.append(body)
        if body.startswith(b"wait"):
            await self.gate.wait()
        if body == b"refuse":
            raise FleetError("no", code=Code.MESSAGE_INVALID)
        if body == b"fail for ever" or (body == b"fail" and body not in self._failed):
            self._failed.add(body)
            raise OSError("the disk is away")
        self.messages.append((device, kind, body))

    def bodies(self) -> list[bytes]:
        return [body for _, _, body in self.messages]

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until `condition()` holds; fail after LIMIT_SECONDS."""
        await until(condition)


class RawClient:
    """A client that sends exactly the packets, or bytes, it is told to."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, version: Version
    ) -> None:
        self._reader = reader
        self.writer = writer
        self.version = version
        self._decoder = Decoder(version)

    @classmethod
    async def open(cls, port: int, tls: ssl.SSLContext, version: Version = Version.V5) -> RawClient:
        reader, writer = await asyncio.open_connection(
            "localhost", port, ssl=tls, family=2, limit=1 << 20
        )
        return cls(reader, writer, version)

    @classmethod
    async def join(
        cls, port: int, pki: Pki, name: str, version: Version = Version.V5, **connect: Any
    ) -> RawClient:
        """Connect as device `name` and take the CONNACK."""
        client = await cls.open(port, pki.client(name), version)
        await client.send(Connect(connect.pop("client_id", name), **connect))
        answer = await client.receive()
        assert getattr(answer, "reason", None) == 0, answer
        return client

    async def send(self, *packets: Packet) -> None:
        self.writer.write(b"".join(encode(packet, self.version) for packet in packets))
        await self.writer.drain()

    async def receive(self) -> Packet | None:
        """Return the next packet, or None when the connection was closed."""
        async with asyncio.timeout(LIMIT_SECONDS):
            while (packet := self._decoder.next_packet()) is None:
                try:
                    data = await self._reader.read(65_536)
                except (ConnectionError, ssl.SSLError):
                    return None
                if not data:
                    return None
                self._decoder.feed(data)
            return packet

    async def until_closed(self) -> list[Packet]:
        """Return everything received until the connection is closed."""
        found: list[Packet] = []
        while (packet := await self.receive()) is not None:
            found.append(packet)
        self.close()
        return found

    def stop_reading(self) -> None:
        """Take nothing more from the socket."""
        cast("asyncio.Transport", self.writer.transport).pause_reading()

    def close(self) -> None:
        self.writer.transport.abort()


class PahoDevice:
    """A device as its agent connects: paho over TLS, status first, will for the unexpected."""

    def __init__(self, name: str, port: int, tls: ssl.SSLContext, version: Version) -> None:
        self.name = name
        self.received: list[tuple[str, bytes]] = []
        self.refusals: list[int] = []
        self._port = port
        self._joined = threading.Event()
        self._v5 = version is Version.V5
        self.client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=name,
            protocol=paho.MQTTv5 if self._v5 else paho.MQTTv311,
            **({} if self._v5 else {"clean_session": True}),
        )
        self.client.tls_set_context(tls)
        self.client.will_set(self.topic(UpKind.STATUS), b'{"connected":false}', qos=1)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = self._on_connect
        self.client.on_message = self._on_message
        self.client.on_subscribe = lambda *_: self._joined.set()

    def topic(self, kind: UpKind) -> str:
        return up_topic(DeviceId(self.name), kind)

    async def join(self) -> bool:
        """Connect; tell whether it worked."""
        self.client.connect_async("localhost", self._port, keepalive=30)
        self.client.loop_start()
        await until(lambda: self._joined.is_set() or self.refusals)
        return self._joined.is_set()

    async def try_publish(self, topic: str, body: bytes) -> None:
        """Publish once on any topic; what comes of it is not waited for."""
        self.client.publish(topic, body, qos=1)

    async def say(self, kind: UpKind, body: bytes) -> None:
        """Publish on an own topic and wait for the acknowledgement."""
        info = self.client.publish(self.topic(kind), body, qos=1)
        await until(info.is_published)

    async def try_subscribe(self, topic_filter: str) -> None:
        """Subscribe and wait for the answer, whatever it is."""
        self._joined.clear()
        self.client.subscribe(topic_filter, qos=1)
        await until(self._joined.is_set)

    async def leave(self) -> None:
        """Disconnect as an agent does: say so, then go."""
        if self.client.is_connected():
            self.client.publish(self.topic(UpKind.STATUS), b'{"connected":false}', qos=1)
        self.client.disconnect()
        await asyncio.to_thread(self.client.loop_stop)

    async def vanish(self) -> None:
        """Lose the connection without a word."""
        sock = self.client.socket()
        self.client.on_connect = None
        self.client.reconnect_delay_set(60, 60)
        if sock is not None:
            sock.shutdown(2)

    def _on_connect(self, client: Any, _: Any, __: Any, reason: Any, ___: Any = None) -> None:
        if reason.is_failure:
            self.refusals.append(reason.value)
            return
        client.subscribe(down_filter(DeviceId(self.name)), qos=1)
        client.publish(self.topic(UpKind.STATUS), b'{"connected":true}', qos=1)

    def _on_message(self, _: Any, __: Any, message: Any) -> None:
        self.received.append((message.topic, message.payload))
