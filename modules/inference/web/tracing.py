"""Which ids a request brings and which the response gives back: Azure ML's table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..errors import BadInputError

LONGEST = 100
HEADERS_TOO_LARGE = 431


@dataclass(frozen=True, slots=True)
class TraceIds:
    """The three ids of a response; an empty one is left out."""

    request_id: str = ""
    ms_request_id: str = ""
    client_request_id: str = ""
    trace_id: str = ""

    def headers(self) -> list[tuple[str, str]]:
        """Return the response headers for the ids that are set."""
        named = (
            ("x-request-id", self.request_id),
            ("x-ms-request-id", self.ms_request_id),
            ("x-ms-client-request-id", self.client_request_id),
            ("traceid", self.trace_id),
        )
        return [pair for pair in named if pair[1]]


def trace_ids(given: Mapping[str, str], new_id: Callable[[], str]) -> TraceIds:
    """Return the ids for a request with these lower-case headers.

    Raises BadInputError (431) when an id is longer than 100 characters.
    """
    request_id = given.get("x-request-id") or new_id()
    client = given.get("x-ms-client-request-id", "")
    legacy = given.get("x-ms-request-id", "")
    if len(request_id) > LONGEST:
        raise BadInputError(
            f"x-request-id must not exceed {LONGEST} characters", status=HEADERS_TOO_LARGE
        )
    if len(legacy) > LONGEST or len(client) > LONGEST:
        raise BadInputError(
            f"x-ms-request-id and x-ms-client-request-id must not exceed {LONGEST} characters",
            status=HEADERS_TOO_LARGE,
        )
    return TraceIds(
        request_id=request_id,
        ms_request_id=legacy or client or request_id,
        client_request_id=client or legacy,
        trace_id=given.get("traceid", ""),
    )
