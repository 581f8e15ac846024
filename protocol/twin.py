"""Twin documents: merge and diff, pure, and the rules their keys and values obey.

Semantics are IoT Hub's, except that a null nested in a newly added object is stripped as RFC 7396
says instead of being stored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from protocol.errors import Code, InvalidError

Json = Any  # a JSON value; recursive aliases do not survive msgspec's introspection

MAX_DEPTH = 10
MAX_KEY_BYTES = 1024
_FORBIDDEN = re.compile(r"[.$ \x00-\x1f\x7f-\x9f\ud800-\udfff]")
_HALF_PAIR = re.compile(r"[\ud800-\udfff]")


def merge(base: Json, patch: Json) -> Json:
    """Return `base` with `patch` applied recursively; null removes a key, arrays are atomic."""
    if not isinstance(patch, Mapping):
        return patch
    out = dict(base) if isinstance(base, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merge(out.get(key), value)
    return out


def diff(before: Mapping[str, Json], after: Mapping[str, Json]) -> dict[str, Json]:
    """Return the smallest patch with `merge(before, patch) == after`.

    Holds for documents without null values, which is what `merge` produces.
    """
    patch: dict[str, Json] = {key: None for key in before if key not in after}
    for key, new in after.items():
        if key not in before:
            patch[key] = new
            continue
        old = before[key]
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            if nested := diff(old, new):
                patch[key] = nested
        elif not same(old, new):
            patch[key] = new
    return patch


def same(left: Json, right: Json) -> bool:
    """Tell whether two JSON values are equal as JSON: `1`, `1.0` and `true` are three values."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def check_patch(patch: Json, *, what: str = "twin patch") -> dict[str, Json]:
    """Return `patch` when it may be written to a twin.

    Raises:
        InvalidError: `twin-invalid`, for a non-object, a bad key, a value JSON cannot carry, or
            nesting (objects and arrays) deeper than MAX_DEPTH.
    """
    if not isinstance(patch, dict):
        raise _refuse(f"{what} is not an object", "send a JSON object")
    _check(patch, what, 1)
    return patch


def _check(value: Json, path: str, depth: int) -> None:
    if isinstance(value, dict | list) and depth > MAX_DEPTH:
        raise _refuse(f"{path[:200]!r} is nested too deep", f"use at most {MAX_DEPTH} levels")
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_key(key, path)
            _check(inner, f"{path}.{key}", depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check(inner, path, depth + 1)
    elif not _is_portable(value):
        raise _refuse(
            f"the value of {path[:200]!r} is not allowed", "use text and numbers of 64 bits"
        )


def _is_portable(value: Json) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, str):
        return value.isascii() or not _HALF_PAIR.search(value)
    return not isinstance(value, int) or -(2**63) <= value < 2**64


def _check_key(key: str, path: str) -> None:
    if not key or len(key.encode(errors="replace")) > MAX_KEY_BYTES or _FORBIDDEN.search(key):
        raise _refuse(
            f"key {key[:80]!r} in {path[:200]!r} is not allowed",
            "keys are 1-1024 bytes without '.', '$', spaces and control characters",
        )


def _refuse(message: str, hint: str) -> InvalidError:
    return InvalidError(message, code=Code.TWIN_INVALID, hint=hint)
