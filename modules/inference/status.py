"""What the server says of itself: the state behind the health routes, and the golden check."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from .exchange import JSON_TYPE, Answer, ScoreRequest
from .golden import GoldenSamples, Sample, is_enough, mismatch

MAX_REASONS = 3


@dataclass(slots=True)
class Status:
    """Written by the main thread, read by the HTTP thread; each field is replaced as a whole."""

    reason: str | None = "init() has not finished"
    initialised: bool = False
    raw_http: bool = False
    model: dict[str, object] = field(default_factory=dict)


def golden_verdict(golden: GoldenSamples, score: Callable[[ScoreRequest], Answer]) -> str | None:
    """Score every sample and return why the model is not ready, or None if it is."""
    found = [_sample_mismatch(sample, score) for sample in golden.samples]
    wrong = [f"sample {index}: {text}" for index, text in enumerate(found) if text is not None]
    if is_enough(len(found) - len(wrong), golden):
        return None
    told = "; ".join(wrong[:MAX_REASONS]) + ("; ..." if len(wrong) > MAX_REASONS else "")
    return f"{len(wrong)} of {len(found)} golden samples disagree: {told}"


def _sample_mismatch(sample: Sample, score: Callable[[ScoreRequest], Answer]) -> str | None:
    body = json.dumps(sample.input).encode()
    headers = (JSON_TYPE, ("content-length", str(len(body))))
    answer = score(ScoreRequest("POST", "/score", "", headers, body))
    if answer.status != 200:  # noqa: PLR2004 - HTTP
        return f"status {answer.status}"
    try:
        actual = json.loads(answer.body)
        if isinstance(actual, str) and not isinstance(sample.expected, str):
            actual = json.loads(actual)  # many v1 scripts answer with a JSON text in a string
    except ValueError:
        return "the answer is not JSON"
    return mismatch(sample.expected, actual, sample.tolerance)
