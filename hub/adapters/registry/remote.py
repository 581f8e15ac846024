"""Any OCI registry over HTTP as a place to put images.

Decides how requests are repeated: at most a few times, only for trouble that passes, only what can
be sent again. Checks the digest of everything it reads.
"""

from __future__ import annotations

import hashlib
import io
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import BinaryIO
from urllib.parse import quote

import httpx

from hub.adapters.registry.login import Login, Session, refused
from hub.core.distribution import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MANIFEST_LIMIT,
    OCI_INDEX,
    OCI_MANIFEST,
)
from protocol.errors import Code, FleetError, InvalidError, NotFoundError, UnavailableError
from protocol.ids import Digest, digest_of, parse_repository

PIECE_BYTES = 1024 * 1024
_ACCEPT = f"{OCI_MANIFEST}, {OCI_INDEX}, {DOCKER_MANIFEST}, {DOCKER_LIST}"
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 4
Body = Callable[[], Iterator[bytes]]


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a registry answered; `live` is the open answer when its body was not read."""

    status: int
    headers: httpx.Headers
    content: bytes = b""
    live: httpx.Response | None = None


@dataclass(frozen=True, slots=True)
class RemoteSettings:
    """How to reach a registry.

    Attributes:
        authority: `host:port`, as it stands in image references.
        login: Who we are.
        ca_file: Certificates to trust instead of the system's; None for the system's.
        plain_http: Speak HTTP without TLS.
        attempts: How often a request is tried.
        pause_seconds: Wait before the second attempt; doubles after each.
        timeout_seconds: Longest silence of the registry.
    """

    authority: str
    login: Login = field(default_factory=Login)
    ca_file: Path | None = None
    plain_http: bool = False
    attempts: int = 3
    pause_seconds: float = 0.5
    timeout_seconds: float = 60.0


class RemoteRegistry:
    """Plays `ImageRegistry` on another server. Safe to use from several threads. Close it."""

    def __init__(self, settings: RemoteSettings) -> None:
        """Prepare a client; nothing is sent yet."""
        self._settings = settings
        scheme = "http" if settings.plain_http else "https"
        self._origin = httpx.URL(f"{scheme}://{settings.authority}")
        trust = ssl.create_default_context(cafile=settings.ca_file)
        self._client = httpx.Client(
            verify=trust, timeout=httpx.Timeout(settings.timeout_seconds, connect=10.0)
        )
        self._session = Session(settings.login, self._origin, self._fetch)
        self._pause = Event()

    @property
    def authority(self) -> str:
        """Where devices reach it: `host:port`."""
        return self._settings.authority

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def has_blob(self, repository: str, digest: Digest) -> bool:
        """Tell whether a blob is visible in a repository."""
        url = self._url(repository, f"blobs/{digest}")
        status = self._call("HEAD", url, _scope(repository, "pull")).status
        if status not in (httpx.codes.OK, httpx.codes.NOT_FOUND):
            raise _unexpected(f"asking for '{digest}'", status)
        return status == httpx.codes.OK

    def mount_blob(self, repository: str, digest: Digest, source: str | None = None) -> bool:
        """Ask the registry to make a blob of another repository visible; tell whether it did."""
        if source is None or source == repository:
            return False
        query = f"?mount={digest}&from={quote(source, safe='')}"
        url = self._url(repository, f"blobs/uploads/{query}")
        scope = f"{_scope(repository, 'pull,push')} {_scope(source, 'pull')}"
        response = self._call("POST", url, scope)
        location = response.headers.get("Location")
        if response.status == httpx.codes.ACCEPTED and location:
            # The registry opened an upload instead; a plain one follows, this one is not wanted.
            self._call("DELETE", url.join(location), _scope(repository, "pull,push"))
        return response.status == httpx.codes.CREATED

    def put_blob(self, repository: str, stream: BinaryIO, digest: Digest, size: int) -> None:
        """Store the `size` bytes that `stream` yields from its start; it may be read again.

        Raises:
            FleetError: `digest-mismatch`, `registry-unreachable`, `registry-refused`.
        """
        start, scope = self._url(repository, "blobs/uploads/"), _scope(repository, "pull,push")

        def send() -> _Answer:
            opened = self._once("POST", start, scope)
            if opened.status != httpx.codes.ACCEPTED:
                return opened
            with self._translated():
                target = start.join(opened.headers.get("Location", ""))
            headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
            return self._once(
                "PUT",
                target.copy_merge_params({"digest": digest}),
                scope,
                headers=headers,
                body=lambda: _rewound(stream),
            )

        response = self._repeated(send)
        if response.status == httpx.codes.BAD_REQUEST and b"DIGEST_INVALID" in response.content:
            raise _mismatch(str(digest))
        if response.status != httpx.codes.CREATED:
            raise _unexpected(f"sending '{digest}'", response.status)

    def put_manifest(
        self, repository: str, content: bytes, media_type: str, tag: str | None = None
    ) -> Digest:
        """Store a manifest whose blobs are there; return its digest.

        Raises:
            FleetError: `registry-unreachable`, `registry-refused`.
        """
        digest = digest_of(content)
        url = self._url(repository, f"manifests/{tag or digest}")
        headers = {"Content-Type": media_type, "Content-Length": str(len(content))}
        response = self._call(
            "PUT",
            url,
            _scope(repository, "pull,push"),
            headers=headers,
            body=lambda: iter([content]),
        )
        if response.status != httpx.codes.CREATED:
            raise _unexpected(f"sending the manifest of '{repository}'", response.status)
        return digest

    def get_manifest(self, repository: str, reference: str) -> tuple[bytes, str]:
        """Return a manifest by tag or digest, checked, and its media type.

        Raises:
            FleetError: `image-unknown`, `digest-mismatch`, `registry-unreachable`,
                `registry-refused`.
        """
        url = self._url(repository, f"manifests/{reference}")
        response = self._call("GET", url, _scope(repository, "pull"), headers={"Accept": _ACCEPT})
        if response.status == httpx.codes.NOT_FOUND:
            raise NotFoundError(
                f"no image '{reference}' in '{repository}'",
                code=Code.IMAGE_UNKNOWN,
                hint="check the name and the tag",
            )
        if response.status != httpx.codes.OK:
            raise _unexpected(f"asking for '{repository}'", response.status)
        if ":" in reference and digest_of(response.content) != reference:
            raise _mismatch(reference)
        return response.content, response.headers.get("Content-Type", "").partition(";")[0].strip()

    def get_blob(self, repository: str, digest: Digest) -> BinaryIO:
        """Open a blob; its end is an error (`digest-mismatch`) when it is not what it should be.

        Raises:
            FleetError: `blob-unknown`, `registry-unreachable`, `registry-refused`.
        """
        url, scope = self._url(repository, f"blobs/{digest}"), _scope(repository, "pull")
        response = self._repeated(lambda: self._once("GET", url, scope, keep_open=True))
        if response.live is not None:
            return io.BufferedReader(_CheckedBody(response.live, digest), PIECE_BYTES)
        if response.status == httpx.codes.NOT_FOUND:
            raise NotFoundError(
                f"no blob '{digest}' in '{repository}'",
                code=Code.BLOB_UNKNOWN,
                hint="push the image again",
            )
        raise _unexpected(f"asking for '{digest}'", response.status)

    # ---- requests --------------------------------------------------------------------------------

    def _url(self, repository: str, rest: str) -> httpx.URL:
        return self._origin.join(f"/v2/{parse_repository(repository)}/{rest}")

    def _call(
        self,
        method: str,
        url: httpx.URL,
        scope: str,
        *,
        headers: dict[str, str] | None = None,
        body: Body | None = None,
    ) -> _Answer:
        return self._repeated(lambda: self._once(method, url, scope, headers=headers, body=body))

    def _repeated(self, send: Callable[[], _Answer]) -> _Answer:
        pause = self._settings.pause_seconds
        for attempt in range(1, self._settings.attempts + 1):
            last = attempt == self._settings.attempts
            try:
                response = send()
            except UnavailableError:
                if last:
                    raise
            else:
                if response.status not in _AGAIN or last:
                    return response
            self._pause.wait(pause)
            pause *= 2
        raise AssertionError("attempts is at least 1")

    def _once(
        self,
        method: str,
        url: httpx.URL,
        scope: str,
        *,
        headers: dict[str, str] | None = None,
        body: Body | None = None,
        keep_open: bool = False,
    ) -> _Answer:
        """Send a request, answering one challenge; a body is sent again then."""
        response = self._send(method, url, scope, headers or {}, body)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            response.close()
            self._session.answer(response.headers.get("WWW-Authenticate", ""), scope)
            response = self._send(method, url, scope, headers or {}, body)
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            response.close()
            raise refused(f"the registry '{self.authority}' refuses '{scope}'")
        if keep_open and response.status_code == httpx.codes.OK:
            return _Answer(response.status_code, response.headers, live=response)
        return _Answer(response.status_code, response.headers, _read(response))

    def _send(
        self, method: str, url: httpx.URL, scope: str, headers: dict[str, str], body: Body | None
    ) -> httpx.Response:
        for _ in range(_MAX_REDIRECTS + 1):
            extra = dict(headers)
            own = (url.scheme, url.netloc) == (self._origin.scheme, self._origin.netloc)
            if own and (header := self._session.header(scope)):
                extra["Authorization"] = header
            content = body() if body else None
            request = self._client.build_request(method, url, headers=extra, content=content)
            with self._translated():
                response = self._client.send(request, stream=True)
            if response.status_code not in _REDIRECTS or method not in ("GET", "HEAD"):
                return response
            response.close()
            with self._translated():
                url = url.join(response.headers.get("Location", ""))
            if self._origin.scheme == "https" and url.scheme != "https":
                break
        raise refused("the registry redirects where it should not")

    def _fetch(
        self, url: httpx.URL, query: dict[str, str], headers: dict[str, str]
    ) -> httpx.Response:
        scopes = [("scope", scope) for scope in query["scope"].split()]
        target = url.copy_merge_params([("service", query["service"]), *scopes])
        with self._translated():
            return self._client.get(target, headers=headers)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _unreachable(self.authority, error) from error


def _rewound(stream: BinaryIO) -> Iterator[bytes]:
    stream.seek(0)
    while piece := stream.read(PIECE_BYTES):
        yield piece


class _CheckedBody(io.RawIOBase):
    """The body of an answer, hashed while it is read."""

    def __init__(self, response: httpx.Response, digest: Digest) -> None:
        self._response = response
        self._pieces = response.iter_raw(PIECE_BYTES)
        self._digest = digest
        self._hasher = hashlib.sha256()
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override] # any writable buffer
        while not self._rest:
            try:
                piece = next(self._pieces, None)
            except httpx.HTTPError as error:
                raise _unreachable(str(self._response.url.host), error) from error
            if piece is None:
                if "sha256:" + self._hasher.hexdigest() != self._digest:
                    raise _mismatch(self._digest)
                return 0
            self._hasher.update(piece)
            self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        if not self.closed:
            self._response.close()
        super().close()


def _read(response: httpx.Response) -> bytes:
    """Return the body of an answer that is not a blob."""
    body = bytearray()
    with closing(response):
        try:
            for piece in response.iter_bytes(64 * 1024):
                body += piece
                if len(body) > MANIFEST_LIMIT:
                    raise refused("the registry sends more than a manifest may have")
        except httpx.HTTPError as error:
            raise _unreachable(str(response.url.host), error) from error
    return bytes(body)


def _scope(repository: str, actions: str) -> str:
    return f"repository:{repository}:{actions}"


def _unreachable(where: str, error: Exception) -> UnavailableError:
    return UnavailableError(
        f"the registry '{where}' does not answer: {str(error) or type(error).__name__}",
        code=Code.REGISTRY_UNREACHABLE,
        hint="check its address, its certificate and the network",
    )


def _unexpected(doing: str, status: int) -> FleetError:
    if status in _AGAIN:
        return UnavailableError(
            f"{doing}, the registry answered {status}",
            code=Code.REGISTRY_UNREACHABLE,
            hint="try again later",
        )
    return InvalidError(
        f"{doing}, the registry answered {status}",
        code=Code.REGISTRY_REFUSED,
        hint="look at the log of the registry",
    )


def _mismatch(digest: str) -> InvalidError:
    return InvalidError(
        f"the bytes do not have the digest '{digest}'",
        code=Code.DIGEST_MISMATCH,
        hint="send or fetch it again",
    )
