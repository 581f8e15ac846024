"""What Azure ML hands to run(): three ways to read a request, as functions of values."""

import json
from collections.abc import Iterable
from inspect import Parameter
from urllib.parse import parse_qs

from ..errors import BadInputError
from ..exchange import ScoreRequest

METHOD_NOT_ALLOWED = 405
UNSUPPORTED_MEDIA_TYPE = 415


def query_values(query: str) -> dict[str, object]:
    """Return the query as JSON values: each parsed if it can be, repeated keys as lists."""
    parsed = parse_qs(query, keep_blank_values=True)
    return {
        key: _value(values[0]) if len(values) == 1 else [_value(text) for text in values]
        for key, values in parsed.items()
    }


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def as_text(request: ScoreRequest) -> str:
    """Return the body as text; for GET, the query as the text of a JSON object."""
    if request.method == "GET":
        return json.dumps(query_values(request.query))
    _only_post(request)
    try:
        return request.body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInputError(f"Input cannot be decoded as UTF-8: {error}") from None


def as_object(request: ScoreRequest) -> dict[str, object]:
    """Return the JSON object in the body; for GET, the query as one."""
    if request.method == "GET":
        return query_values(request.query)
    _only_post(request)
    if not request.body:
        raise BadInputError("POST body is empty. Expecting a JSON dictionary.")
    try:
        value = json.loads(request.body)
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"POST body could not be decoded as JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadInputError("POST body should be a JSON dictionary.")
    return value


def as_arguments(request: ScoreRequest, parameters: Iterable[Parameter]) -> dict[str, object]:
    """Return the JSON object's values by parameter name, for run() with an input schema."""
    content_type = request.header("content-type").partition(";")[0].strip().lower()
    is_json = content_type == "application/json" or content_type.endswith("+json")
    if request.method == "POST" and not is_json:
        raise BadInputError(
            "Expects Content-Type to be application/json", status=UNSUPPORTED_MEDIA_TYPE
        )
    values = as_object(request)
    arguments = {}
    for parameter in parameters:
        value = values.get(parameter.name, parameter.default)
        if value is Parameter.empty:
            raise BadInputError(f"A value is not provided for the {parameter.name!r} parameter.")
        arguments[parameter.name] = value
    return arguments


def _only_post(request: ScoreRequest) -> None:
    if request.method != "POST":
        raise BadInputError("Method not allowed", status=METHOD_NOT_ALLOWED)
