"""Twin documents: merge and diff, pure, and the rules their keys and values obey.

Semantics are IoT Hub's, except that a null nested in a newly added object is stripped as RFC 7396
says instead of being stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from protocol.errors import Code, InvalidError

Json = Any  # a JSON value; recursive aliases do not survive msgspec's introspection

MAX_DEPTH = 10
MAX_KEY_BYTES = 1024
_FORBIDDEN = frozenset(".$ ")


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
        InvalidError: `twin-invalid`, for a non-object, a bad key, or nesting deeper than MAX_DEPTH.
    """
    if not isinstance(patch, dict):
        raise _refuse(f"{what} is not an object", "send a JSON object")
    _check(patch, what, 1)
    return patch


def _check(value: Json, path: str, depth: int) -> None:
    if isinstance(value, dict):
        if depth > MAX_DEPTH:
            raise _refuse(f"{path!r} is nested too deep", f"use at most {MAX_DEPTH} levels")
        for key, inner in value.items():
            _check_key(key, path)
            _check(inner, f"{path}.{key}", depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check(inner, path, depth + 1)


def _check_key(key: str, path: str) -> None:
    if not key or len(key.encode()) > MAX_KEY_BYTES or any(c in _FORBIDDEN or c < " " for c in key):
        raise _refuse(
            f"key {key[:80]!r} in {path!r} is not allowed",
            "keys are 1-1024 bytes without '.', '$', spaces and control characters",
        )


def _refuse(message: str, hint: str) -> InvalidError:
    return InvalidError(message, code=Code.TWIN_INVALID, hint=hint)
