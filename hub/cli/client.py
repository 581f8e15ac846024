"""The command line's way to a hub: its HTTP API, with errors as they were raised there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

from protocol.errors import Code, FleetError, InvalidError, UnavailableError

if TYPE_CHECKING:
    import httpx  # imported when a hub is called: `--help` must not wait for it

_PIECE = 1024 * 1024
_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Context:
    """Which hub, and as whom.

    Attributes:
        url: Base URL of the hub.
        token: An operator's access token.
        ca: PEM of the root certificates that vouch for the hub.
    """

    url: str
    token: str
    ca: str


def load_context(path: Path) -> Context:
    """Read a context file.

    Raises:
        InvalidError: `file-missing`, `settings-invalid`.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InvalidError(
            f"no hub is configured: {str(path)!r} cannot be read",
            code=Code.FILE_MISSING,
            hint="start one with `rimward hub up`, or point RIMWARD_CONTEXT at its admin.json",
        ) from error
    try:
        context = Context(**json.loads(raw))
        ssl.create_default_context(cadata=context.ca)
        is_usable = context.url.startswith("https://") and context.token.isascii() and context.ca
    except (ValueError, TypeError, AttributeError, ssl.SSLError) as error:
        raise _not_a_context(path) from error
    if not is_usable:
        raise _not_a_context(path)
    return context


def _not_a_context(path: Path) -> InvalidError:
    return InvalidError(
        f"{str(path)!r} is not a hub's admin.json",
        code=Code.SETTINGS_INVALID,
        hint="point RIMWARD_CONTEXT at the file in the hub's data folder",
    )


def segment(text: str) -> str:
    """Return what a person wrote as one segment of a path: `#`, `?` and `/` lose their meaning."""
    return quote(text, safe="")


class HubClient:
    """Calls the operators' API. Raises the hub's own FleetErrors, and `hub-unreachable`."""

    def __init__(self, context: Context) -> None:
        import httpx  # noqa: PLC0415 - see above

        self._url = context.url
        trust = ssl.create_default_context(cadata=context.ca)
        headers = {"Authorization": f"Bearer {context.token}"}
        self._http = httpx.Client(
            base_url=context.url,
            verify=trust,
            headers=headers,
            timeout=_TIMEOUT_SECONDS,
            trust_env=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, **params: Any) -> Any:
        """GET and return the decoded answer."""
        given = {key: value for key, value in params.items() if value is not None}
        return self._call("GET", path, params=given).json()

    def post(self, path: str, body: Any = None) -> Any:
        """POST JSON and return the decoded answer."""
        return self._call("POST", path, json=body).json()

    def patch(self, path: str, body: Any) -> Any:
        """PATCH JSON and return the decoded answer."""
        return self._call("PATCH", path, json=body).json()

    def upload(self, file: BinaryIO, moved: Callable[[int], None]) -> str:
        """Upload a file and return its digest; `moved` is told the bytes of every piece."""
        digest = _digest(file)

        def pieces() -> Iterator[bytes]:
            while piece := file.read(_PIECE):
                moved(len(piece))
                yield piece

        self._call("POST", "/api/v1/blobs", content=pieces(), headers={"X-Digest": digest})
        return digest

    def download(self, path: str, target: Path, moved: Callable[[int, int], None]) -> str:
        """Stream an answer into a file, whole or not at all, and return its digest.

        `moved` is told (bytes of the piece, bytes in all).

        Raises:
            InvalidError: `digest-mismatch`; `file-missing` for a target that cannot be written.
        """
        temporary = target.with_name(target.name + ".part")
        try:
            with self._stream(path) as response:
                digest = _save(response, temporary, moved)
            if digest != response.headers.get("x-digest", digest):
                raise InvalidError(
                    f"the download of {path!r} is damaged",
                    code=Code.DIGEST_MISMATCH,
                    hint="try again",
                )
            temporary.replace(target)
        except OSError as error:
            raise InvalidError(
                f"{str(target)!r} cannot be written: {error.strerror}",
                code=Code.FILE_MISSING,
                hint="name a file in a folder that is there",
            ) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        return digest

    def _stream(self, path: str) -> _Stream:
        return _Stream(self, path)

    def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        import httpx  # noqa: PLC0415 - see above

        try:
            response = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise self.unreachable(error) from error
        return check(response)

    def unreachable(self, error: Exception) -> UnavailableError:
        """Return the error for a hub that does not answer."""
        return UnavailableError(
            f"the hub at {self._url!r} does not answer: {str(error) or type(error).__name__}",
            code=Code.HUB_UNREACHABLE,
            hint="start it with `rimward hub up`, or check RIMWARD_CONTEXT",
        )


class _Stream:
    """A streamed answer, its errors translated."""

    def __init__(self, client: HubClient, path: str) -> None:
        self._client = client
        self._open = client._http.stream("GET", path)  # noqa: SLF001 - two halves of one thing

    def __enter__(self) -> httpx.Response:
        import httpx  # noqa: PLC0415 - see above

        try:
            response = self._open.__enter__()
        except httpx.HTTPError as error:
            raise self._client.unreachable(error) from error
        if response.is_error:
            response.read()
        return check(response)

    def __exit__(self, *exc: object) -> None:
        import httpx  # noqa: PLC0415 - see above

        self._open.__exit__(*exc)  # type: ignore[arg-type]  # handed through as they came
        if isinstance(exc[1], httpx.HTTPError):
            raise self._client.unreachable(exc[1]) from exc[1]


def check(response: httpx.Response) -> httpx.Response:
    """Return the response, or raise the FleetError it carries."""
    if response.is_success:
        return response
    try:
        problem = response.json()
        code, message = Code(problem["code"]), str(problem["message"])
    except (ValueError, KeyError, TypeError):
        raise FleetError(
            f"the hub answered status {response.status_code}",
            code=Code.INTERNAL,
            hint="see the hub's log; is this really a Rimward hub?",
        ) from None
    raise FleetError(message, code=code, hint=problem.get("hint") or None)


def _save(response: httpx.Response, path: Path, moved: Callable[[int, int], None]) -> str:
    """Write the answer's bytes and return their digest."""
    total = int(response.headers.get("content-length", 0))
    hasher = hashlib.sha256()
    with path.open("wb") as file:
        for piece in response.iter_bytes(_PIECE):
            file.write(piece)
            hasher.update(piece)
            moved(len(piece), total)
    return f"sha256:{hasher.hexdigest()}"


def _digest(file: BinaryIO) -> str:
    hasher = hashlib.sha256()
    while piece := file.read(_PIECE):
        hasher.update(piece)
    file.seek(0)
    return f"sha256:{hasher.hexdigest()}"
