"""Options that several commands share."""

from __future__ import annotations

import json
import threading
from typing import Annotated, Any

import typer

from hub.cli.render import Output
from protocol.errors import Code, InvalidError

OutputOption = Annotated[Output, typer.Option("--output", "-o", help="Form of the result.")]


def pairs(given: list[str] | None) -> dict[str, str]:
    """Return repeated `key=value` options as a dict, or raise InvalidError (`request-invalid`)."""
    out = {}
    for pair in given or []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InvalidError(
                f"{pair!r} is not key=value",
                code=Code.REQUEST_INVALID,
                hint="write a name, '=', and a value: site=plant-7",
            )
        out[key] = value
    return out


def tags(given: list[str] | None) -> dict[str, Any]:
    """Return tag options as values: numbers, true, false, null and JSON as such, the rest text."""
    return {key: _value(value) for key, value in pairs(given).items()}


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return text


def _refuse_constant(word: str) -> Any:
    raise ValueError(word)  # NaN and Infinity are no JSON, though Python reads them


def pause(seconds: float) -> None:
    """Wait between two questions to the hub."""
    threading.Event().wait(seconds)
