"""A small real OCI registry over HTTPS, and images to put into it.

It knows the pull half of the protocol: manifests, blobs, ranges, bearer tokens, the token flow. Its
faults are set from outside: cut connections, stalls, altered bytes, statuses.
"""

from __future__ import annotations

import base64
import datetime as dt
import gzip
import io
import ipaddress
import json
import ssl
import tarfile
import tempfile
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.adapters.images.documents import host_architecture
from protocol.ids import Digest, ImageRef, digest_of
from protocol.messages import Credential

LAYER = "application/vnd.oci.image.layer.v1.tar"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
TOKEN = "pull-token"
BEARER = Credential("bearer", TOKEN)


def make_tar(files: dict[str, bytes], *, executable: tuple[str, ...] = ()) -> bytes:
    """An ordinary layer of regular files; a name that ends in '/' is a folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name.rstrip("/"))
            info.mode = 0o755 if name in executable or name.endswith("/") else 0o644
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@dataclass(frozen=True)
class Layer:
    """A layer to push: its plain tar, and how it travels."""

    tar: bytes
    kind: str = "code"
    gzip: bool = False


@dataclass
class Faults:
    """What goes wrong, consumed as requests come."""

    cut_after: deque[int] = field(default_factory=deque)  # bytes of a blob, then the line is cut
    stall: bool = False  # nothing more comes after the first bytes of a blob
    altered: set[str] = field(default_factory=set)  # digests served with one byte changed
    statuses: deque[int] = field(default_factory=deque)  # answers before anything is served
    no_ranges: bool = False


class OciRegistry:
    """Serves on a loopback port until closed; use as a context manager."""

    def __init__(self) -> None:
        self.content: dict[str, tuple[str, bytes]] = {}
        self.tokens = {TOKEN}
        self.users: dict[str, str] = {}
        self.faults = Faults()
        self.requests: list[tuple[str, str, str]] = []  # path, range, authorization
        self.released = threading.Event()
        self._server = _Server(self)
        self.ca_pem, key_pem = _certificate()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile() as file:
            file.write(self.ca_pem + key_pem)
            file.flush()
            context.load_cert_chain(file.name)
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.ca_pem.decode())

    def blob_requests(self, digest: str) -> list[str]:
        """The ranges this blob was asked for with; '' for a whole one."""
        return [range_ for path, range_, _ in self.requests if path.endswith(f"/blobs/{digest}")]

    def layers(self, image: Digest) -> list[str]:
        """The digests of an image's layers, lowest first."""
        return [layer["digest"] for layer in json.loads(self.content[image][1])["layers"]]

    # ---- putting images in ----------------------------------------------------------------------

    def put(self, media_type: str, raw: bytes) -> dict[str, Any]:
        digest = digest_of(raw)
        self.content[digest] = (media_type, raw)
        return {"mediaType": media_type, "digest": digest, "size": len(raw)}

    def put_json(self, media_type: str, document: object) -> dict[str, Any]:
        return self.put(media_type, json.dumps(document, sort_keys=True).encode())

    def put_layer(self, layer: Layer) -> dict[str, Any]:
        raw = gzip.compress(layer.tar, 1, mtime=0) if layer.gzip else layer.tar
        media_type = f"{LAYER}+gzip" if layer.gzip else LAYER
        return self.put(media_type, raw) | {"annotations": {"io.rimward.layer": layer.kind}}

    def put_image(
        self,
        layers: list[Layer],
        config: dict[str, Any],
        *,
        architecture: str = "",
    ) -> Digest:
        """Push an image and return its manifest's digest; `config` is its `config` part."""
        document = {
            "architecture": architecture or host_architecture(),
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [digest_of(item.tar) for item in layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.put_json(CONFIG, document),
            "layers": [self.put_layer(item) for item in layers],
        }
        return Digest(self.put_json(MANIFEST, manifest)["digest"])

    def put_index(self, children: dict[str, Digest]) -> Digest:
        """Push an index of manifests by architecture."""
        manifests = [
            {
                "mediaType": MANIFEST,
                "digest": digest,
                "size": len(self.content[digest][1]),
                "platform": {"architecture": architecture, "os": "linux"},
            }
            for architecture, digest in children.items()
        ]
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}
        return Digest(self.put_json(INDEX, index)["digest"])

    def ref(self, digest: Digest, repository: str = "demo/digits") -> ImageRef:
        return ImageRef(self.authority, repository, None, digest)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, registry: OciRegistry) -> None:
        self.registry = registry
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 0
    server: _Server

    def do_GET(self) -> None:
        registry = self.server.registry
        authorization = self.headers.get("Authorization", "")
        parts = urlsplit(self.path)
        range_ = self.headers.get("Range", "")
        registry.requests.append((parts.path, range_, authorization))
        if parts.path == "/token":
            self._token(authorization, parse_qs(parts.query))
        elif authorization.removeprefix("Bearer ") not in registry.tokens:
            self._challenge()
        elif registry.faults.statuses:
            self._answer(registry.faults.statuses.popleft(), b"{}", "application/json")
        else:
            self._content(parts.path.rpartition("/")[2], range_)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass

    def _token(self, authorization: str, query: dict[str, list[str]]) -> None:
        registry = self.server.registry
        kind, _, value = authorization.partition(" ")
        user, _, password = base64.b64decode(value).decode().partition(":")
        known = kind == "Basic" and registry.users.get(user) == password
        if (registry.users and not known) or "scope" not in query:
            self._answer(401, b"{}", "application/json")
            return
        token = f"token-for-{query['scope'][0]}"
        registry.tokens.add(token)
        self._answer(200, json.dumps({"token": token}).encode(), "application/json")

    def _challenge(self) -> None:
        registry = self.server.registry
        realm = f"https://{registry.authority}/token"
        value = f'Bearer realm="{realm}",service="tests"'
        self._answer(401, b"{}", "application/json", {"WWW-Authenticate": value})

    def _content(self, digest: str, range_: str) -> None:
        registry = self.server.registry
        if digest in ("", "v2"):
            self._answer(200, b"{}", "application/json")
            return
        if digest not in registry.content:
            self._answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}', "application/json")
            return
        media_type, raw = registry.content[digest]
        if digest in registry.faults.altered:
            raw = raw[:-1] + bytes([raw[-1] ^ 1])
        headers = {"Docker-Content-Digest": digest}
        start = 0
        if range_ and not registry.faults.no_ranges:
            start = int(range_.removeprefix("bytes=").removesuffix("-"))
            if start >= len(raw):
                self._answer(416, b"", media_type)
                return
            headers["Content-Range"] = f"bytes {start}-{len(raw) - 1}/{len(raw)}"
        status = 206 if "Content-Range" in headers else 200
        self._answer(status, raw[start:], media_type, headers)

    def _answer(
        self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None
    ) -> None:
        registry = self.server.registry
        faults = registry.faults
        is_blob = "/blobs/" in self.path and status < 300
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if is_blob and faults.stall:
            self.wfile.write(body[:10])
            registry.released.wait(20)
            self.close_connection = True
            return
        if is_blob and faults.cut_after:
            self.wfile.write(body[: faults.cut_after.popleft()])
            self.close_connection = True
            return
        self.wfile.write(body)


def _certificate() -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test registry")])
    now = dt.datetime.now(dt.UTC)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(alternative, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private


SERVER = b"""
import http.server, os, sys

print("module started", flush=True)
if "TEST_EXIT" in os.environ:
    sys.exit(int(os.environ["TEST_EXIT"]))


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = open("/proc/self/environ", "rb").read() if self.path == "/environ" else b"ok"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


address = (os.environ["RIMWARD_MODULE_HOST"], int(os.environ["RIMWARD_MODULE_PORT"]))
http.server.HTTPServer(address, Handler).serve_forever()
"""


def python_image(registry: OciRegistry, *, version: str = "1", size: int = 1000) -> Digest:
    """Push an image with a stdlib web server above a base that no process needs."""
    import sys  # noqa: PLC0415 - the interpreter that runs the tests is what the image asks for

    base = Layer(make_tar({"bin/never-fetched": b"base"}), kind="base", gzip=True)
    code = Layer(make_tar({"app/server.py": SERVER}), gzip=True)
    model = Layer(make_tar({"models/weights.bin": version.encode() * size}), kind="model")
    return registry.put_image(
        [base, code, model],
        {
            "Entrypoint": ["python3"],
            "Cmd": ["/app/server.py"],
            "Env": ["PATH=/usr/bin", "MODEL=/models/weights.bin"],
            "WorkingDir": "/app",
            "Labels": {"io.rimward.python": f"3.{sys.version_info[1]}"},
        },
    )
