"""Corners of the rule for golden samples that a model meets in practice."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.golden import is_close, mismatch


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("expected", "actual", "tolerance"),
    [
        (1, 1.0, 0.0),
        (1.0, 1.001, 1e-3 + 1e-12),
        (0.0, -0.0, 0.0),
        (10**400, 10**400, 0.0),
        (float("inf"), float("inf"), 0.0),
        ({}, {"anything": 1}, 0.0),
        ([], [], 0.0),
        ({"a": None}, {"a": None, "b": 2}, 0.0),
        ("1", "1", 0.0),
    ],
)
def test_these_agree(expected: Any, actual: Any, tolerance: float) -> None:
    assert mismatch(expected, actual, tolerance) is None


@pytest.mark.parametrize(
    ("expected", "actual", "place"),
    [
        (10**400, 1.0, "$"),
        (float("inf"), 1.0, "$"),
        (1.0, float("nan"), "$"),
        ("1", 1, "$"),
        (None, {}, "$"),
        ({"a": None}, {}, "$.a"),
        ([], [0], "$"),
        ({"a": [{"b": 1}]}, {"a": [{"b": 2}]}, "$.a[0].b"),
        ({"a": {}}, {"a": []}, "$.a"),
        ([0, 0], [0, False], "$[1]"),
    ],
)
def test_these_differ_and_the_place_is_named(expected: Any, actual: Any, place: str) -> None:
    found = mismatch(expected, actual, 1e-3)

    assert found is not None
    assert found.startswith(f"{place} ")


def test_an_answer_too_deep_to_compare_is_a_wrong_one() -> None:
    assert mismatch(deep(100_000), deep(100_000), 0.0) == "$ is nested too deep to compare"


@given(st.floats(), st.floats(), st.floats(0, 1e6))
def test_closeness_does_not_depend_on_the_side(one: float, other: float, tolerance: float) -> None:
    assert is_close(one, other, tolerance) is is_close(other, one, tolerance)


@given(st.recursive(st.integers() | st.text(max_size=3), lambda i: st.lists(i, max_size=3)))
def test_a_description_is_one_short_line(value: Any) -> None:
    found = mismatch({"never": "equal"}, value, 0.0)

    assert found is not None
    assert len(found) <= 100
    assert json.dumps(found).count("\\n") == 0
