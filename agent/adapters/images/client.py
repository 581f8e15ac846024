"""Fetches manifests and blobs from an OCI registry over networks that break.

Decides when to resume, when to try again and when to give up; verifies digest and size of every
byte it hands out. Knows nothing about where images are kept or how they are run. There is no limit
on how long a download may take, only on how long it may stand still.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO, TypeVar

import urllib3
from urllib3.exceptions import HTTPError

from agent.adapters.durable_files import disk_errors
from agent.adapters.images.auth import answer_challenge, authorization, parse_token, refused
from agent.adapters.images.documents import DOCUMENT_LIMIT, MANIFEST_TYPES, Descriptor
from agent.adapters.images.download import CHUNK, Download, verify
from agent.core.ports import Clock
from protocol.errors import Code, InvalidError, UnavailableError
from protocol.ids import Digest, ImageRef
from protocol.messages import Credential

_PROGRESS = 64 * 1024
_PIECE = 128 * 1024
_REDIRECTS = 5
_RETRY_AFTER_LIMIT = 300.0
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class PullPolicy:
    """How patient a pull is.

    Attributes:
        attempts: Tries in a row that bring nothing before the pull fails.
        first_delay: Seconds before the second try; doubled after each.
        delay_ceiling: Most seconds between two tries.
        connect_seconds: How long a connection may take to open.
        stall_seconds: How long a download may stand still.
    """

    attempts: int = 6
    first_delay: float = 0.5
    delay_ceiling: float = 20.0
    connect_seconds: float = 10.0
    stall_seconds: float = 30.0

    def delay(self, failures: int) -> float:
        """Return the wait after so many failures in a row (from 1)."""
        return float(min(self.delay_ceiling, self.first_delay * 2.0 ** min(failures - 1, 32)))


@dataclass(slots=True)
class Meter:
    """Counts the bytes of bodies that came over the wire, lost ones included."""

    bytes_received: int = 0


@dataclass(frozen=True, slots=True)
class Source:
    """Where one image is pulled from, by whom, and who counts."""

    image: ImageRef
    credential: Credential
    meter: Meter


class _CutError(Exception):
    """The network or the registry failed in a way that may pass."""

    def __init__(self, reason: str, *, gained: int = 0, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.gained = gained
        self.retry_after = retry_after


class RegistryClient:
    """Speaks the pull part of the OCI distribution protocol.

    Args:
        clock: Waits between tries.
        ssl_context: What registries' certificates are checked against, None for the system's. It
            belongs to this client: roots that come with a credential are added to it.
        authority_map: Base URL to use instead of `https://<authority>`, by image authority.
        policy: How patient to be.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        ssl_context: ssl.SSLContext | None = None,
        authority_map: Mapping[str, str] | None = None,
        policy: PullPolicy | None = None,
    ) -> None:
        self._clock = clock
        self._policy = policy or PullPolicy()
        self._bases = dict(authority_map or {})
        self._tokens: dict[tuple[str, str, str], str] = {}
        self._trust = ssl_context or ssl.create_default_context()
        self._trusted: set[str] = set()
        self._pool = urllib3.PoolManager(
            num_pools=8,
            maxsize=8,
            ssl_context=self._trust,
            timeout=urllib3.Timeout(
                connect=self._policy.connect_seconds, read=self._policy.stall_seconds
            ),
            retries=urllib3.Retry(
                total=None, connect=0, read=0, status=0, other=0, redirect=_REDIRECTS
            ),
        )

    def close(self) -> None:
        """Close idle connections."""
        self._pool.clear()

    async def manifest(self, source: Source, digest: Digest) -> bytes:
        """Return a manifest or index by digest, verified.

        Raises:
            FleetError: `image-unavailable`, `registry-refused`, `digest-mismatch`.
        """
        accept = {"Accept": ", ".join(MANIFEST_TYPES)}

        def fetch(_: _Stop) -> bytes:
            return self._small(source, f"manifests/{digest}", accept)

        raw = await self._persist(source, fetch)
        verify(raw, digest)
        return raw

    async def document(self, source: Source, descriptor: Descriptor) -> bytes:
        """Return a small blob (a configuration), verified.

        Raises:
            FleetError: `image-unavailable`, `registry-refused`, `digest-mismatch`.
        """

        def fetch(_: _Stop) -> bytes:
            return self._small(source, f"blobs/{descriptor.digest}", {})

        raw = await self._persist(source, fetch)
        verify(raw, descriptor.address)
        return raw

    async def blob(self, source: Source, descriptor: Descriptor, path: Path) -> None:
        """Bring a blob to the file `path`, continuing with what is there already.

        Returns when the file has the descriptor's size and digest. A file with other content is
        removed.

        Raises:
            FleetError: `image-unavailable`, `registry-refused`, `digest-mismatch`, `disk-full`.
        """
        download = Download(descriptor, path)

        def fetch(stop: _Stop) -> None:
            self._continue(source, download, stop)

        await self._persist(source, fetch)

    # ---- trying again ---------------------------------------------------------------------------

    async def _persist(self, source: Source, step: Callable[[_Stop], _Result]) -> _Result:
        failures = 0
        while True:
            try:
                return await _in_thread(step)
            except _CutError as cut:
                failures = 1 if cut.gained >= _PROGRESS else failures + 1
                if failures >= self._policy.attempts:
                    raise UnavailableError(
                        f"image {str(source.image)!r} could not be pulled: {cut}",
                        code=Code.IMAGE_UNAVAILABLE,
                        hint="check the network between this device and the registry",
                    ) from cut
                await self._clock.sleep(max(cut.retry_after, self._policy.delay(failures)))

    # ---- one try, in a thread -------------------------------------------------------------------

    def _small(self, source: Source, path: str, headers: dict[str, str]) -> bytes:
        response = self._get(source, path, headers)
        try:
            raw = _read(response, DOCUMENT_LIMIT + 1)
        finally:
            response.close()
        source.meter.bytes_received += len(raw)
        if len(raw) > DOCUMENT_LIMIT:
            raise InvalidError(
                f"a document of {str(source.image)!r} is larger than {DOCUMENT_LIMIT} bytes",
                code=Code.IMAGE_UNSUITABLE,
                hint="build the image again",
            )
        return raw

    def _continue(self, source: Source, download: Download, stop: _Stop) -> None:
        with disk_errors(str(source.image)), download.open() as file:
            while True:
                if download.missing:
                    self._receive(source, download, file, stop)
                if download.finish(file):
                    return

    def _receive(self, source: Source, download: Download, file: BinaryIO, stop: _Stop) -> None:
        gained = 0
        headers = {"Range": f"bytes={download.offset}-"} if download.offset else {}
        response = self._get(source, f"blobs/{download.descriptor.digest}", headers)
        stop.watch(response)
        try:
            if response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                download.restart(file)
                raise _CutError("the registry has less of a layer than this device")
            if not _continues(response, download.offset):
                download.restart(file)
            while download.missing:
                piece = _read_some(response, min(_PIECE, download.missing + 1), gained)
                if not piece:
                    raise _CutError("the connection ended early", gained=gained)
                if stop.is_set:
                    raise _CutError("cancelled")
                gained += len(piece)
                source.meter.bytes_received += len(piece)
                download.add(file, piece)
        finally:
            response.close()

    def _get(self, source: Source, path: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        image = source.image
        self._add_roots(source.credential.ca)
        base = self._base(image.authority)
        key = (base, image.repository, source.credential.username)
        token = self._tokens.get(key)
        value = f"Bearer {token}" if token else authorization(source.credential)
        url = f"{base}/v2/{image.repository}/{path}"
        response = self._send(url, headers, value)
        if response.status == HTTPStatus.UNAUTHORIZED:
            challenge = response.headers.get("WWW-Authenticate", "")
            response.close()
            self._tokens[key] = self._fetch_token(source, challenge, base)
            response = self._send(url, headers, f"Bearer {self._tokens[key]}")
        if response.status not in (
            HTTPStatus.OK,
            HTTPStatus.PARTIAL_CONTENT,
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
        ):
            response.close()
            self._tokens.pop(key, None)
            raise _failure(image, response)
        return response

    def _fetch_token(self, source: Source, challenge: str, base: str) -> str:
        image = source.image
        request = answer_challenge(
            challenge, image, source.credential, allow_plain=base.startswith("http://")
        )
        response = self._send(self._rebase(request.url), {}, request.authorization)
        try:
            if response.status != HTTPStatus.OK:
                raise _failure(image, response)
            return parse_token(_read(response, CHUNK), image)
        finally:
            response.close()

    def _send(
        self, url: str, headers: dict[str, str], value: str | None
    ) -> urllib3.BaseHTTPResponse:
        sent = headers | ({"Authorization": value} if value else {})
        try:
            return self._pool.request(
                "GET", url, headers=sent, preload_content=False, decode_content=False
            )
        except HTTPError as error:
            raise _cut(error) from error

    def _add_roots(self, pem: str) -> None:
        if pem and pem not in self._trusted:
            self._trust.load_verify_locations(cadata=pem)
            self._trusted.add(pem)

    def _base(self, authority: str) -> str:
        if not authority and "" not in self._bases:
            raise InvalidError(
                "the image names no registry",
                code=Code.ID_INVALID,
                hint="write it as 'registry:port/name@sha256:...'",
            )
        return self._bases.get(authority, f"https://{authority}").rstrip("/")

    def _rebase(self, url: str) -> str:
        """A token service behind a mapped authority is reached the same way as the registry."""
        scheme, _, rest = url.partition("://")
        authority, slash, path = rest.partition("/")
        base = self._bases.get(authority)
        return f"{base.rstrip('/')}{slash}{path}" if base and scheme == "https" else url


class _Stop:
    """How a cancelled download ends at once, although its thread waits for the network."""

    def __init__(self) -> None:
        self.is_set = False
        self._response: urllib3.BaseHTTPResponse | None = None

    def watch(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response

    def set(self) -> None:
        self.is_set = True
        if self._response is not None:
            with suppress(ValueError, RuntimeError, OSError):  # it has just ended by itself
                self._response.shutdown()


async def _in_thread(step: Callable[[_Stop], _Result]) -> _Result:
    stop = _Stop()
    try:
        return await asyncio.to_thread(step, stop)
    except asyncio.CancelledError:
        stop.set()
        raise


def _read(response: urllib3.BaseHTTPResponse, amount: int) -> bytes:
    """Return the whole of a small body, at most `amount` bytes of it."""
    try:
        return response.read(amount)
    except HTTPError as error:
        raise _CutError(f"the connection broke ({type(error).__name__})") from error


def _read_some(response: urllib3.BaseHTTPResponse, amount: int, gained: int) -> bytes:
    """Return what has come, so that nothing is lost when no more does."""
    try:
        return response.read1(amount)
    except HTTPError as error:
        raise _CutError(f"the connection broke ({type(error).__name__})", gained=gained) from error


def _continues(response: urllib3.BaseHTTPResponse, offset: int) -> bool:
    if response.status != HTTPStatus.PARTIAL_CONTENT:
        return offset == 0
    return response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")


def _failure(image: ImageRef, response: urllib3.BaseHTTPResponse) -> Exception:
    status = response.status
    if status == HTTPStatus.NOT_FOUND:
        return UnavailableError(
            f"the registry {image.authority!r} does not have {str(image)!r}",
            code=Code.IMAGE_UNAVAILABLE,
            hint="push the image again, or deploy one that is there",
        )
    transient = status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
    if transient or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        after = response.headers.get("Retry-After", "")
        seconds = float(after) if after.isdecimal() else 0.0
        return _CutError(
            f"the registry answered {status}", retry_after=min(seconds, _RETRY_AFTER_LIMIT)
        )
    return refused(image, f"it answered {status}")


def _cut(error: HTTPError) -> Exception:
    reason = getattr(error, "reason", None) or error
    if "CERTIFICATE_VERIFY_FAILED" in str(reason):
        return UnavailableError(
            "the registry's certificate is not trusted by this device",
            code=Code.IMAGE_UNAVAILABLE,
            hint="enrol the device again, or add the registry's authority to the system's trust",
        )
    return _CutError(f"the registry does not answer ({type(reason).__name__})")
