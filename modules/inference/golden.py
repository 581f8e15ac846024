"""Golden samples: known inputs with the answers a healthy model gives, judged as values.

The file, with any JSON as input and expected:
`{"samples": [{"input": ..., "expected": ..., "tolerance": 0.001}], "minPass": 1.0}`.
`expected` is a pattern: objects compare the keys it names, arrays element by element at the same
length, numbers within `tolerance` (absolute, default 0.001), everything else exactly.
Decides what agrees and what is enough; must not run the model.
"""

import json
import math
from dataclasses import dataclass

from protocol.golden import mismatch

MAX_BYTES = 64 * 1024 * 1024
__all__ = ["GoldenFileError", "GoldenSamples", "Sample", "is_enough", "mismatch", "parse_golden"]

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
    if len(raw) > MAX_BYTES:
        raise GoldenFileError(f"it is larger than {MAX_BYTES} bytes")
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


def is_enough(agreed: int, golden: GoldenSamples) -> bool:
    """Tell whether `agreed` agreeing samples reach the share that is asked for."""
    return agreed >= golden.min_pass * len(golden.samples) - 1e-9
