"""The HTTP surface: which path answers what, in Azure ML's words and codes.

Runs in the HTTP thread and never runs the model: scoring is handed to the worker's thread, so the
health routes answer however long run() takes.
"""

import json
import logging
import random
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import SERVER, VERSION
from ..errors import BadInputError
from ..exchange import (
    INTERNAL_ERROR,
    JSON_TYPE,
    RUN_FAILED,
    Answer,
    Headers,
    ScoreRequest,
    error_answer,
)
from ..settings import Settings
from ..status import Status
from .admission import Admission, Place
from .body import BodyError, ClientLeftError, read_body
from .pending import Dispatcher
from .tracing import TraceIds, trace_ids

if TYPE_CHECKING:
    from granian._granian import RSGIHTTPProtocol as HTTPProtocol
    from granian.rsgi import Scope

log = logging.getLogger("rimward.inference")

MAX_WAITING = 64
SERVER_VERSION = ("x-ms-server-version", f"{SERVER}/{VERSION}")
RETRY_SOON = ("retry-after", "1")
HTML = ("content-type", "text/html; charset=utf-8")
SCORE_METHODS = "GET, POST, OPTIONS"
NOT_FOUND = (
    "The requested URL was not found on the server."
    " If you entered the URL manually please check your spelling and try again."
)
WRONG_METHOD = "The method is not allowed for the requested URL."


@dataclass(frozen=True, slots=True)
class _Call:
    scope: "Scope"
    proto: "HTTPProtocol"
    headers: Headers
    given: dict[str, str]


class Routes:
    """The RSGI application."""

    def __init__(self, settings: Settings, status: Status, dispatcher: Dispatcher) -> None:
        self._settings = settings
        self._status = status
        self._dispatcher = dispatcher
        self._stopping = False
        self._admission = Admission(
            requests=MAX_WAITING, limit_bytes=2 * settings.max_request_bytes
        )
        self._pages = {
            "/": self._home,
            "/health/live": self._live,
            "/health/ready": self._ready,
            "/metadata": self._metadata,
        }

    async def __rsgi__(self, scope: "Scope", proto: "HTTPProtocol") -> None:
        """Answer one request, whatever happens."""
        headers = scope.headers.items()
        call = _Call(scope, proto, headers, dict(headers))
        ids = TraceIds()
        try:
            ids = trace_ids(call.given, _new_id)
            answer = await self._answer(call)
        except BadInputError as error:
            answer = error_answer(error.status, str(error))
        except ClientLeftError:
            return
        except Exception:  # one inbound message: a bug costs one answer, not the server
            log.exception("a request failed")
            answer = error_answer(500, INTERNAL_ERROR)
        proto.response_bytes(
            answer.status, [*answer.headers, *ids.headers(), SERVER_VERSION], answer.body
        )

    def stop(self) -> None:
        """Refuse new work from now on."""
        self._stopping = True

    @property
    def active(self) -> int:
        """How many requests to /score are being read, queued or scored."""
        return self._admission.active

    async def _answer(self, call: _Call) -> Answer:
        if call.scope.path == "/score":
            return self._refusal(call.scope.method) or await self._score(call)
        page = self._pages.get(call.scope.path)
        if page is None:
            return error_answer(404, NOT_FOUND)
        if call.scope.method not in ("GET", "HEAD"):
            return error_answer(405, WRONG_METHOD, ("allow", "GET, HEAD"))
        return page()

    def _home(self) -> Answer:
        # Azure ML's server listens only after init(), so its health probe says as much.
        if not self._status.initialised:
            return self._unavailable()
        return Answer(200, b"Healthy", (HTML,))

    def _live(self) -> Answer:
        return _page(200, {"status": "live"})

    def _ready(self) -> Answer:
        reason = self._not_ready()
        if reason is not None:
            return _page(503, {"status": "not ready", "reason": reason}, RETRY_SOON)
        return _page(200, {"status": "ready"})

    def _metadata(self) -> Answer:
        service = {"name": self._settings.service_name, "version": self._settings.service_version}
        about = {"service": service, "server": {"name": SERVER, "version": VERSION}}
        state = {"ready": self._not_ready() is None, "active": self.active}
        return _page(200, {**about, **self._status.model, **state})

    def _not_ready(self) -> str | None:
        if self._stopping:
            return "the server is stopping"
        if self._dispatcher.is_stuck:
            return "run() is stuck past its time limit"
        return self._status.reason

    def _unavailable(self) -> Answer:
        reason = self._not_ready() or "the server is starting"
        return error_answer(503, f"The service is not available: {reason}.", RETRY_SOON)

    def _refusal(self, method: str) -> Answer | None:
        """Return the answer for a call that never reaches run(), if this is one."""
        if not self._status.raw_http and method == "OPTIONS":
            return Answer(200, b"", (HTML, (RUN_FAILED, "False"), ("allow", SCORE_METHODS)))
        if method not in ("GET", "POST", "OPTIONS", "HEAD"):
            return error_answer(405, WRONG_METHOD, ("allow", SCORE_METHODS))
        if not self._status.raw_http and method == "HEAD":
            return error_answer(405, "Method not allowed", ("allow", SCORE_METHODS))
        if self._stopping or not self._status.initialised:
            return self._unavailable()
        return None

    async def _score(self, call: _Call) -> Answer:
        place = self._admission.enter()
        if place is None:
            message = f"The service is busy: {MAX_WAITING} requests are waiting."
            return error_answer(503, message, RETRY_SOON)
        try:
            return await self._dispatcher.score(await self._request(call, place))
        except BodyError as error:
            return error_answer(error.status, str(error), *error.headers)
        finally:
            place.leave()

    async def _request(self, call: _Call, place: Place) -> ScoreRequest:
        limit = self._settings.max_request_bytes
        body = await read_body(call.proto, call.given, place, limit)
        scope = call.scope
        host = call.given.get("host", self._settings.host)
        return ScoreRequest(scope.method, scope.path, scope.query_string, call.headers, body, host)


def _page(status: int, value: dict[str, object], *extra: tuple[str, str]) -> Answer:
    return Answer(status, json.dumps(value).encode("ascii"), (JSON_TYPE, *extra))


def _new_id() -> str:
    # uuid4() asks the kernel each time, which also hands the interpreter to the other thread.
    return str(uuid.UUID(int=random.getrandbits(128), version=4))
