"""The hub's HTTPS interface for devices: one call, one answer, one of our errors.

Nothing is retried here; the loop does that. Every call is bounded in bytes and seconds.
"""

from __future__ import annotations

import asyncio
import http.client
import ssl
from collections.abc import Awaitable, Callable
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec
import urllib3

from agent.adapters.trust import find_pinned_root, is_certificate_alert, pinned_context
from agent.core.claim import Claim
from agent.core.ports import Clock
from protocol import codec
from protocol.errors import (
    CATALOGUE,
    Code,
    ConflictError,
    DeniedError,
    FleetError,
    InvalidError,
    NotFoundError,
    UnavailableError,
)
from protocol.ids import ImageRef
from protocol.messages import (
    Credential,
    CredentialRequest,
    Enrolled,
    EnrollRequest,
    Problem,
    Renewed,
    RenewRequest,
)

MAX_ANSWER_BYTES = 1024 * 1024
_MAX_CA_BYTES = 64 * 1024
_CHUNK_BYTES = 16 * 1024
_MAX_HINT_CHARACTERS = 1000
_OK = 200
_SERVER_ERROR = 500
_LEAVES: dict[int, type[FleetError]] = {
    401: DeniedError,
    403: DeniedError,
    404: NotFoundError,
    409: ConflictError,
}

_A = TypeVar("_A")
_T = TypeVar("_T", bound=msgspec.Struct)


class HubApiClient:
    """Calls the hub over TLS, see agent.core.ports.HubApi.

    Args:
        base_url: `https://host:port`.
        make_context: Makes the TLS context of each call, so that a renewed certificate is used
            from the next call on.
        clock: Measures the deadline.
        timeout_seconds: For a whole call, connecting included.
    """

    def __init__(
        self,
        base_url: str,
        make_context: Callable[[], ssl.SSLContext],
        clock: Clock,
        *,
        timeout_seconds: float = 20.0,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._make_context = make_context
        self._clock = clock
        self._timeout_seconds = timeout_seconds

    async def enroll(self, request: EnrollRequest) -> Enrolled:
        """Trade a claim for an identity; needs no client certificate."""
        return await self._post("/device/v1/enroll", request, Enrolled)

    async def credential(self, image: ImageRef) -> Credential:
        """Get the means to pull an image of the current desired state."""
        return await self._post("/device/v1/credential", CredentialRequest(str(image)), Credential)

    async def renew(self, csr_pem: str) -> str:
        """Get a new certificate chain (PEM) over the old one's connection."""
        return (await self._post("/device/v1/renew", RenewRequest(csr_pem), Renewed)).certificate

    async def _post(self, path: str, message: msgspec.Struct, kind: type[_T]) -> _T:
        body = codec.encode(message)
        status, answer = await _within(
            self._timeout_seconds, self._base_url, asyncio.to_thread(self._call, path, body)
        )
        if status != _OK:
            raise _problem(status, answer, self._base_url)
        return codec.decode(answer, kind, limit=MAX_ANSWER_BYTES)

    def _call(self, path: str, body: bytes) -> tuple[int, bytes]:
        # A connection of its own for each call: calls are rare, and none meets a stale one.
        deadline = self._clock.monotonic() + self._timeout_seconds
        with urllib3.PoolManager(
            num_pools=1,
            ssl_context=self._make_context(),
            timeout=urllib3.Timeout(total=self._timeout_seconds),
            retries=False,
        ) as pool:
            try:
                response = pool.request(
                    "POST",
                    self._base_url + path,
                    body=body,
                    headers={"Content-Type": "application/json", "Accept-Encoding": "identity"},
                    redirect=False,
                    preload_content=False,
                )
                try:
                    return response.status, self._read(response, deadline)
                finally:
                    response.close()
            except (urllib3.exceptions.HTTPError, ssl.SSLError, OSError) as error:
                raise _translated(error, self._base_url) from error

    def _read(self, response: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
        parts = bytearray()
        # read1 returns what there is, so a peer that drips meets the deadline.
        while chunk := response.read1(_CHUNK_BYTES, decode_content=False):
            parts += chunk
            if len(parts) > MAX_ANSWER_BYTES:
                raise InvalidError(
                    f"the answer of {self._base_url!r} is larger than {MAX_ANSWER_BYTES} bytes",
                    code=Code.TOO_LARGE,
                    hint="check that the hub's address leads to a hub",
                )
            if self._clock.monotonic() > deadline:
                raise _unreachable(self._base_url, "did not finish its answer in time")
        return bytes(parts)


async def open_pinned(claim: Claim, clock: Clock, *, timeout_seconds: float = 20.0) -> HubApiClient:
    """Make first contact: fetch the hub's root, hold it against the claim, trust it alone.

    Raises:
        FleetError: `hub-unreachable`; `certificate-invalid` when the root is not the pinned one.
    """
    fetching = asyncio.to_thread(_fetch_roots, claim.hub_url, timeout_seconds)
    pem = await _within(timeout_seconds, claim.hub_url, fetching)
    root = find_pinned_root(pem, claim.ca_fingerprint)
    return HubApiClient(
        claim.hub_url, lambda: pinned_context(root), clock, timeout_seconds=timeout_seconds
    )


async def _within(seconds: float, base_url: str, call: Awaitable[_A]) -> _A:
    # Sockets bound the wait for each byte; this bounds the whole, also for a peer that drips.
    try:
        async with asyncio.timeout(seconds):
            return await call
    except TimeoutError as error:
        raise _unreachable(base_url, "did not finish its answer in time") from error


def _fetch_roots(base_url: str, timeout_seconds: float) -> bytes:
    # Whoever answers is not trusted: the bytes count only if they have the pinned fingerprint.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    parts = urlsplit(base_url)
    connection = http.client.HTTPSConnection(
        parts.hostname or "", parts.port, timeout=timeout_seconds, context=context
    )
    try:
        connection.request("GET", "/pki/ca.pem")
        response = connection.getresponse()
        pem = response.read(_MAX_CA_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(base_url, "does not answer") from error
    finally:
        connection.close()
    if response.status != _OK:
        raise _unreachable(base_url, f"answers {response.status} to '/pki/ca.pem'")
    return pem


def _problem(status: int, answer: bytes, base_url: str) -> FleetError:
    """Return the hub's own error, or ours when something else answered."""
    try:
        problem = codec.decode(answer, Problem)
        code = Code(problem.code)
    except (InvalidError, ValueError):
        if status >= _SERVER_ERROR:
            return _unreachable(base_url, f"answers {status} without a reason we know")
        return InvalidError(
            f"{base_url!r} answers {status} without a reason we know",
            code=Code.REQUEST_INVALID,
            hint="check that the address leads to a hub, and that hub and agent go together",
        )
    entry = CATALOGUE[code]
    by_status = UnavailableError if entry.http_status >= _SERVER_ERROR else InvalidError
    leaf = _LEAVES.get(entry.http_status, by_status)
    hint = problem.hint[:_MAX_HINT_CHARACTERS] or None
    return leaf(problem.message[:_MAX_HINT_CHARACTERS], code=code, hint=hint)


def _translated(error: Exception, base_url: str) -> FleetError:
    """Return our error for what urllib3, ssl or the socket raised."""
    cause = _tls_error(error)
    if cause is None:
        return _unreachable(base_url, "does not answer")
    if isinstance(cause, ssl.SSLCertVerificationError):
        return DeniedError(
            f"the certificate of {base_url!r} is refused: {cause.verify_message}",
            code=Code.CERTIFICATE_INVALID,
            hint="check the hub's address and this device's clock; if the hub was set up anew, "
            "enrol again: `rimward-agent enroll --claim ...`",
        )
    if is_certificate_alert(str(cause)):
        return DeniedError(
            f"{base_url!r} refuses this device's certificate",
            code=Code.CERTIFICATE_INVALID,
            hint="it may have expired or been retired: ask the hub's operator for a new claim: "
            "`rimward device invite`",
        )
    return _unreachable(base_url, "does not speak TLS as expected")


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """Return the TLS error behind a wrapped one; urllib3 keeps it as an argument or a cause."""
    for _ in range(8):
        if isinstance(error, ssl.SSLError) or error is None:
            return error
        inner = next((arg for arg in error.args if isinstance(arg, BaseException)), None)
        error = inner or error.__cause__ or error.__context__
    return None


def _unreachable(base_url: str, why: str) -> UnavailableError:
    return UnavailableError(
        f"the hub at {base_url!r} {why}",
        code=Code.HUB_UNREACHABLE,
        hint="check that the hub runs and that this device reaches its address and port",
    )
