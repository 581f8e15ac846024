"""What devices measured, as it lies in the database, and what can be read off it; pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from protocol.ids import DeviceId


@dataclass(frozen=True, slots=True)
class Measurement:
    """One record of telemetry.

    Attributes:
        device: Who sent it.
        epoch: Life of the device's store it was numbered in.
        seq: Number within the epoch.
        at: Device time.
        received_at: Hub time.
        body: The message.
        id: Order of arrival; 0 before it is stored.
    """

    device: DeviceId
    epoch: str
    seq: int
    module: str
    output: str
    at: datetime
    received_at: datetime
    body: bytes
    properties: dict[str, str] = field(default_factory=dict)
    id: int = 0


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A message that could not be accepted, kept for people to look at."""

    device: DeviceId
    received_at: datetime
    reason: str
    body: bytes


@dataclass(frozen=True, slots=True)
class TelemetryFilter:
    """Which rows: every field narrows, `after_id` and `limit` page."""

    device: DeviceId | None = None
    module: str | None = None
    after_id: int = 0
    limit: int | None = 100
    newest: bool = False
    """Take the last `limit` rows instead of the first; the order stays that of arrival."""


@dataclass(frozen=True, slots=True)
class Score:
    """How right the answers of one group of devices were, and how fast.

    Attributes:
        answered: Records in all.
        known: Those whose true label is known.
        labelled: Those of the known that hold a label at all.
        right: Those of the known with the true label.
        latency_p50_ms: On the device; None when no record told one.
        latency_p99_ms: As above.
    """

    answered: int
    known: int
    labelled: int
    right: int
    latency_p50_ms: float | None
    latency_p99_ms: float | None

    @property
    def accuracy(self) -> float | None:
        """Share of right answers among those whose truth is known."""
        return self.right / self.known if self.known else None


def percentile(values: list[float], share: float) -> float | None:
    """Return the value at `share` (0..1) of the sorted values (nearest rank), None for none."""
    if not values:
        return None
    ordered = sorted(values)
    rank = max(0, min(len(ordered) - 1, round(share * (len(ordered) - 1))))
    return ordered[rank]


def score(
    rows: Iterable[tuple[str, Measurement]], truth: Mapping[str, Any], *, key: str = "label"
) -> dict[str, Score]:
    """Judge classification results against true labels, per group.

    Args:
        rows: (group, measurement); a body is JSON with `key` (a list of one, or a value), its
            properties name the input in `input` and the time taken in `latencyMs`.
        truth: True label by input name.
        key: Where the label stands in a body.

    Returns:
        A Score per group, in order of group name.
    """
    tallies: dict[str, _Tally] = {}
    for group, row in rows:
        tallies.setdefault(group, _Tally(key)).add(row, truth)
    return {group: tallies[group].score() for group in sorted(tallies)}


class _Tally:
    def __init__(self, key: str) -> None:
        self._key = key
        self._answered = self._known = self._labelled = self._right = 0
        self._latencies: list[float] = []

    def add(self, row: Measurement, truth: Mapping[str, Any]) -> None:
        self._answered += 1
        if (latency := _number(row.properties.get("latencyMs"))) is not None:
            self._latencies.append(latency)
        name = row.properties.get("input", "")
        if name in truth:
            label = _label(row.body, self._key)
            self._known += 1
            self._labelled += label is not None
            self._right += label is not None and label == truth[name]

    def score(self) -> Score:
        p50, p99 = percentile(self._latencies, 0.5), percentile(self._latencies, 0.99)
        return Score(self._answered, self._known, self._labelled, self._right, p50, p99)


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _label(body: bytes, key: str) -> Any:
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    label = answer.get(key) if isinstance(answer, dict) else None
    return label[0] if isinstance(label, list) and len(label) == 1 else label
