"""Golden samples: what counts as the same answer, and how a difference is named."""

from __future__ import annotations

from typing import Any

import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from protocol.golden import is_close, mismatch

NAN = float("nan")


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@given(strategies.json_values)
def test_every_answer_agrees_with_itself(value: Any) -> None:
    assert mismatch(value, value, 0.0) is None


@given(expected=strategies.json_objects, more=strategies.json_objects)
def test_more_keys_than_expected_do_not_matter(
    expected: dict[str, Any], more: dict[str, Any]
) -> None:
    assert mismatch(expected, {**more, **expected}, 0.0) is None


@given(value=st.integers(-1000, 1000), off=st.floats(0, 2))
def test_numbers_agree_within_the_tolerance(value: int, off: float) -> None:
    difference = abs(value - (value + off))

    assert (mismatch(value, value + off, 1.0) is None) is (difference <= 1.0)


@pytest.mark.parametrize(
    ("expected", "actual", "says"),
    [
        (1, 2, "$ is 2, expected 1"),
        (1, True, "$ is true, expected 1"),
        (True, 1, "$ is 1, expected true"),
        ("a", "b", '$ is "b", expected "a"'),
        (None, 0, "$ is 0, expected null"),
        ({"a": 1}, [1], "$ is [1], expected an object"),
        ({"a": {"b": 1}}, {"a": {}}, "$.a.b is missing"),
        ({"a": {"b": 1}}, {"a": {"b": 5}}, "$.a.b is 5, expected 1"),
        ([1], {"a": 1}, '$ is {"a": 1}, expected an array'),
        ([1], [1, 2], "$ has 2 elements, expected 1"),
        ([1, [2, 3]], [1, [2, 4]], "$[1][1] is 4, expected 3"),
        ("a", "x" * 1000, '$ is "' + "x" * 56 + '..., expected "a"'),
    ],
)
def test_names_the_first_difference(expected: Any, actual: Any, says: str) -> None:
    assert mismatch(expected, actual, 0.0) == says


@pytest.mark.parametrize("levels", [900, 100_000])
def test_an_answer_nested_without_end_does_not_agree(levels: int) -> None:
    said = mismatch(nested(levels), nested(levels), 0.0)

    assert said == "$ is nested too deep to compare"


@pytest.mark.parametrize(
    ("expected", "actual", "close"),
    [
        (1, 1.05, True),
        (1, 1.2, False),
        (NAN, NAN, True),
        (NAN, 1, False),
        (float("inf"), float("inf"), True),
        (10**400, 1.5, False),
        ("1", 1, False),
        (1, None, False),
    ],
)
def test_is_close(expected: object, actual: object, *, close: bool) -> None:
    assert is_close(expected, actual, 0.1) is close
