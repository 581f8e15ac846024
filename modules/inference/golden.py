"""Golden samples: known inputs with the answers a healthy model gives, judged as values.

The file: `{"samples": [{"input": <JSON>, "expected": <JSON>, "tolerance": 0.001}], "minPass": 1.0}`.
`expected` is a pattern: objects compare the keys it names, arrays element by element at the same
length, numbers within `tolerance` (absolute, default 0.001), everything else exactly.
Decides what agrees and what is enough; must not run the model.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

MAX_SAMPLES = 1_000
DEFAULT_TOLERANCE = 1e-3


class GoldenFileError(ValueError):
    """The file does not say what golden samples say; the text names the place."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One input, what its answer must look like, and how far numbers may be off."""

    input: object
    expected: object
    tolerance: float = DEFAULT_TOLERANCE


@dataclass(frozen=True, slots=True)
class GoldenSamples:
    """The samples and the share of them (0 to 1) that must agree."""

    samples: tuple[Sample, ...]
    min_pass: float = 1.0


def parse_golden(raw: bytes) -> GoldenSamples:
    """Return the samples in `raw`, or raise GoldenFileError."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise GoldenFileError(f"it is not JSON: {error}") from error
    samples = document.get("samples") if isinstance(document, dict) else None
    if not isinstance(samples, list) or not 1 <= len(samples) <= MAX_SAMPLES:
        raise GoldenFileError(f"'samples' is not a list of 1 to {MAX_SAMPLES} samples")
    return GoldenSamples(
        tuple(_sample(index, value) for index, value in enumerate(samples)),
        _number(document.get("minPass", 1.0), "'minPass'", highest=1.0),
    )


def _sample(index: int, value: object) -> Sample:
    if not isinstance(value, dict) or not {"input", "expected"} <= value.keys():
        raise GoldenFileError(f"sample {index} has no 'input' or no 'expected'")
    tolerance = value.get("tolerance", DEFAULT_TOLERANCE)
    return Sample(
        value["input"],
        value["expected"],
        _number(tolerance, f"'tolerance' of sample {index}", highest=math.inf),
    )


def _number(value: object, name: str, *, highest: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= highest:
        raise GoldenFileError(f"{name} is not a number from 0 to {highest}")
    return float(value)


def mismatch(expected: object, actual: object, tolerance: float, place: str = "$") -> str | None:
    """Return where and how `actual` first departs from `expected`, or None if it agrees."""
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
        found = mismatch(value, actual[key], tolerance, f"{place}.{key}")
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
    found = (mismatch(e, a, tolerance, f"{place}[{i}]") for i, (e, a) in pairs)
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


def is_enough(agreed: int, golden: GoldenSamples) -> bool:
    """Tell whether `agreed` agreeing samples reach the share that is asked for."""
    return agreed >= golden.min_pass * len(golden.samples) - 1e-9
