"""What can be read off telemetry: percentiles and scores, whatever devices send."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core.telemetry import Measurement, Score, percentile, score
from protocol.ids import DeviceId

AT = datetime(2030, 1, 1, tzinfo=UTC)


def row(body: bytes, **properties: str) -> Measurement:
    return Measurement(DeviceId("d"), "e", 1, "m", "out", AT, AT, body, properties)


def test_no_values_have_no_percentile() -> None:
    assert percentile([], 0.5) is None


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_percentiles_are_values_in_order(values: list[float]) -> None:
    low, middle, high = (percentile(values, share) for share in (0, 0.5, 1))

    assert (low, high) == (min(values), max(values))
    assert middle in values


def test_answers_are_judged_by_group_in_order() -> None:
    rows = [
        ("b", row(b'{"label":[7]}', input="x", latencyMs="4")),
        ("a", row(b'{"label":7}', input="x", latencyMs="2")),
        ("a", row(b'{"label":3}', input="x", latencyMs="8")),
        ("a", row(b'{"label":3}', input="unknown")),
    ]

    scores = score(rows, {"x": 7})

    assert list(scores) == ["a", "b"]
    assert scores["a"] == Score(3, 2, 2, 1, 2.0, 8.0)
    assert scores["a"].accuracy == 0.5
    assert scores["b"] == Score(1, 1, 1, 1, 4.0, 4.0)


def test_without_known_answers_there_is_no_accuracy() -> None:
    assert score([("a", row(b"{}"))], {})["a"].accuracy is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[1]",
        b"7",
        b'{"label":[1,2]}',
        b'{"label":[]}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"label":{"x":1}}',
    ],
)
def test_a_body_that_is_no_answer_is_a_wrong_one(body: bytes) -> None:
    found = score([("a", row(body, input="x"))], {"x": 7})["a"]

    assert (found.answered, found.known, found.right) == (1, 1, 0)


def test_the_label_stands_where_one_says() -> None:
    rows = [("a", row(b'{"wine":[1]}', input="x")), ("a", row(b'{"label":[1]}', input="y"))]

    found = score(rows, {"x": 1, "y": 1}, key="wine")["a"]

    assert (found.known, found.labelled, found.right) == (2, 1, 1)


@pytest.mark.parametrize("text", ["", "fast", "nan", "inf", "-inf", "1e999"])
def test_a_latency_that_is_no_number_is_none(text: str) -> None:
    assert score([("a", row(b"{}", latencyMs=text))], {})["a"].latency_p50_ms is None


@given(st.binary(max_size=40), st.dictionaries(st.sampled_from(["input", "latencyMs"]), st.text()))
def test_nothing_a_device_sends_breaks_the_score(body: bytes, properties: dict[str, Any]) -> None:
    assert score([("a", row(body, **properties))], {"": None})["a"].answered == 1
