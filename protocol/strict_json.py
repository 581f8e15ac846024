"""JSON from outside: bounded, without duplicate keys, without the numbers JSON does not have."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from protocol.errors import Code, InvalidError


def parse_object(raw: bytes, *, limit: int, code: Code, what: str) -> dict[str, Any]:
    """Return the JSON object in `raw`.

    Args:
        raw: UTF-8 JSON.
        limit: Most bytes accepted; checked before anything is parsed.
        code: Code of the error raised when `raw` is refused.
        what: Name of the document, for the error's sentence.

    Raises:
        InvalidError: `too-large`, or `code` for bad UTF-8, bad JSON, duplicate keys, NaN, Infinity,
            numbers beyond 64 bits, half surrogate pairs, nesting the parser cannot follow, or
            anything that is not an object.
    """
    if len(raw) > limit:
        raise InvalidError(
            f"{what} is {len(raw)} bytes, the limit is {limit}",
            code=Code.TOO_LARGE,
            hint=f"make the {what} smaller",
        )
    try:
        value = json.loads(
            text := raw.decode(),  # the parser itself would also guess UTF-16 and UTF-32
            object_pairs_hook=_no_duplicates,
            parse_constant=_no_constant,
            parse_int=_bounded_int,
            parse_float=_finite_float,
        )
        if "\\u" in text:  # an escape may spell half a pair, which nobody can write out again
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise InvalidError(
            f"{what} is not valid JSON: {error}", code=code, hint="check it with a JSON linter"
        ) from error
    if not isinstance(value, dict):
        raise InvalidError(f"{what} is not a JSON object", code=code, hint="send a JSON object")
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {twice[:80]!r} stands twice in one object")
    return out


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _bounded_int(text: str) -> int:
    if len(text) > 20:  # noqa: PLR2004 - digits of 2**64, and a sign
        raise ValueError("an integer has more than 64 bits")
    value = int(text)
    if not -(2**63) <= value < 2**64:
        raise ValueError("an integer has more than 64 bits")
    return value


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is beyond the range of 64 bits")
    return value
