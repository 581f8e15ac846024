"""One scoring exchange as values: what came in, what goes out.

Decides which bytes and headers the result of run() becomes. Knows no HTTP library and no engine.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

Headers = Sequence[tuple[str, str]]

JSON_TYPE = ("content-type", "application/json")
RUN_FAILED = "x-ms-run-function-failed"
INTERNAL_ERROR = "An unexpected internal error occurred. Check the logs for more info."
SCRIPT_ERROR = "An unexpected error occurred in scoring script. Check the logs for more info."

# Names that the transport or the server sets itself, whatever a script asks for.
RESERVED = frozenset(
    {
        "connection",
        "content-length",
        "keep-alive",
        "transfer-encoding",
        "upgrade",
        "x-request-id",
        RUN_FAILED,
    }
)


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """A request to /score with its whole body. Header names are lower case."""

    method: str
    path: str
    query: str
    headers: Headers
    body: bytes
    host: str = "localhost"

    def header(self, name: str) -> str:
        """Return the first header of this lower-case name, or ''."""
        return next((value for key, value in self.headers if key == name), "")


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished response: `headers` carry everything but the request ids."""

    status: int
    body: bytes
    headers: Headers


class ResponseLike(Protocol):
    """What run() may return to answer by itself: AMLResponse, or a Flask response."""

    status_code: int
    headers: Any

    def get_data(self) -> bytes:
        """Return the body."""
        ...


def json_answer(
    status: int, value: object, *extra: tuple[str, str], failed: bool = False
) -> Answer:
    """Return `value` as JSON. Raises what json.dumps raises."""
    body = json.dumps(value).encode("ascii")
    return Answer(status, body, (JSON_TYPE, (RUN_FAILED, str(failed)), *extra))


def error_answer(
    status: int, message: str, *extra: tuple[str, str], failed: bool = False
) -> Answer:
    """Return the one error shape: `{"message": ...}`."""
    return json_answer(status, {"message": message}, *extra, failed=failed)


def answer_for(output: object, elapsed_ms: float) -> Answer:
    """Turn the result of run() into the response; None becomes `{}`.

    Raises TypeError, ValueError or RecursionError for what JSON cannot hold (numpy values, bytes,
    sets, circles) and for header values that HTTP cannot carry.
    """
    elapsed = ("x-ms-run-fn-exec-ms", f"{elapsed_ms:.3f}")
    if not _is_response(output):
        return json_answer(200, {} if output is None else output, elapsed)
    pairs = [(str(name).lower(), str(value)) for name, value in output.headers.items()]
    failed = output.status_code >= 500 or (RUN_FAILED, "True") in pairs  # noqa: PLR2004 - HTTP
    headers = [*_checked(pairs), (RUN_FAILED, str(failed)), elapsed]
    return Answer(output.status_code, bytes(output.get_data()), headers)


def _is_response(output: object) -> TypeGuard[ResponseLike]:
    return hasattr(output, "status_code") and hasattr(output, "get_data")


def _checked(pairs: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    for name, value in pairs:
        if name in RESERVED:
            continue
        if not (name.isascii() and name.isprintable() and value.isascii() and value.isprintable()):
            raise ValueError(f"header {name!r} holds characters that HTTP cannot carry")
        yield name, value
