"""When an answer agrees with a golden sample. Pure, and the same on a device and inside a module.

`expected` is a pattern: objects compare the keys it names, arrays element by element at the same
length, numbers within an absolute tolerance, everything else exactly.
"""

import json
from collections.abc import Sequence


def mismatch(expected: object, actual: object, tolerance: float, place: str = "$") -> str | None:
    """Return where and how `actual` first departs from `expected`, or None if it agrees."""
    try:
        return _mismatch(expected, actual, tolerance, place)
    except RecursionError:
        return f"{place} is nested too deep to compare"


def _mismatch(expected: object, actual: object, tolerance: float, place: str) -> str | None:
    if isinstance(expected, dict):
        return _object_mismatch(expected, actual, tolerance, place)
    if isinstance(expected, list):
        return _array_mismatch(expected, actual, tolerance, place)
    if _is_number(expected) and _is_number(actual):
        agrees = is_close(expected, actual, tolerance)
    else:
        agrees = type(expected) is type(actual) and expected == actual
    return None if agrees else f"{place} is {_brief(actual)}, expected {_brief(expected)}"


def _object_mismatch(
    expected: dict[str, object], actual: object, tolerance: float, place: str
) -> str | None:
    if not isinstance(actual, dict):
        return f"{place} is {_brief(actual)}, expected an object"
    for key, value in expected.items():
        if key not in actual:
            return f"{place}.{key} is missing"
        found = _mismatch(value, actual[key], tolerance, f"{place}.{key}")
        if found is not None:
            return found
    return None


def _array_mismatch(
    expected: Sequence[object], actual: object, tolerance: float, place: str
) -> str | None:
    if not isinstance(actual, list):
        return f"{place} is {_brief(actual)}, expected an array"
    if len(expected) != len(actual):
        return f"{place} has {len(actual)} elements, expected {len(expected)}"
    pairs = enumerate(zip(expected, actual, strict=True))
    found = (_mismatch(e, a, tolerance, f"{place}[{i}]") for i, (e, a) in pairs)
    return next((text for text in found if text is not None), None)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_close(expected: object, actual: object, tolerance: float) -> bool:
    """Tell whether two JSON numbers agree within an absolute tolerance; NaN agrees with NaN."""
    if not isinstance(expected, int | float) or not isinstance(actual, int | float):
        return False
    if expected == actual or (expected != expected and actual != actual):  # noqa: PLR0124 - NaN
        return True
    try:
        return abs(expected - actual) <= tolerance
    except OverflowError:  # an integer that no float can hold is far from every float
        return False


def _brief(value: object) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."  # noqa: PLR2004 - one line of a log
