import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.inference.golden import (
    GoldenFileError,
    GoldenSamples,
    Sample,
    is_enough,
    mismatch,
    parse_golden,
)

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
json_values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)
numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(json_values)
def test_every_value_agrees_with_itself(value: Any) -> None:
    assert mismatch(value, value, 0.0) is None


@given(json_values)
def test_every_value_agrees_with_its_own_wire_form(value: Any) -> None:
    assert mismatch(value, json.loads(json.dumps(value)), 0.0) is None


@given(st.dictionaries(st.text(max_size=3), json_values), st.text(min_size=4), json_values)
def test_keys_that_are_not_expected_do_not_matter(
    expected: dict[str, Any], key: str, extra: Any
) -> None:
    assert mismatch(expected, {**expected, key: extra}, 0.0) is None


@given(st.lists(json_values, min_size=1, max_size=4))
def test_an_array_of_another_length_disagrees(expected: list[Any]) -> None:
    assert mismatch(expected, expected[:-1], 0.0) is not None


@given(numbers, st.floats(min_value=0, max_value=10), st.floats(min_value=-1, max_value=1))
def test_numbers_agree_exactly_within_the_tolerance(
    expected: float, tolerance: float, share: float
) -> None:
    actual = expected + share * tolerance * 2

    agrees = mismatch(expected, actual, tolerance) is None

    assert agrees == (abs(expected - actual) <= tolerance)


@given(json_values, json_values, st.floats(min_value=0, max_value=1e6))
def test_any_two_values_are_judged_without_an_error(
    expected: Any, actual: Any, tolerance: float
) -> None:
    verdict = mismatch(expected, actual, tolerance)

    assert verdict is None or verdict.startswith("$")


@pytest.mark.parametrize(
    ("expected", "actual", "sentence"),
    [
        ({"label": [1]}, {"label": [2]}, "$.label[0] is 2, expected 1"),
        ({"label": [1]}, {"other": 1}, "$.label is missing"),
        ({"a": 1}, [1], "$ is [1], expected an object"),
        ([1, 2], [1], "$ has 1 elements, expected 2"),
        ([1], {"0": 1}, '$ is {"0": 1}, expected an array'),
        (True, 1, "$ is 1, expected true"),
        (1, True, "$ is true, expected 1"),
        (None, 0, "$ is 0, expected null"),
        ("1", 1, '$ is 1, expected "1"'),
        (0.5, 0.502, "$ is 0.502, expected 0.5"),
    ],
)
def test_the_first_difference_is_named(expected: Any, actual: Any, sentence: str) -> None:
    assert mismatch(expected, actual, 1e-3) == sentence


def test_nan_agrees_with_nan_and_infinity_only_with_itself() -> None:
    nan, inf = float("nan"), float("inf")

    assert mismatch([nan, inf], [nan, inf], 0.0) is None
    assert mismatch(inf, -inf, 1e9) is not None
    assert mismatch(nan, 0.0, 1e9) is not None


def test_an_integer_beyond_every_float_is_far_from_a_float() -> None:
    assert mismatch(10**400, 0.5, 1.0) is not None


def test_a_file_is_read_with_its_defaults() -> None:
    exact = b'{"input": 1, "expected": 2, "tolerance": 0}'
    raw = b'{"samples": [{"input": 1, "expected": 2}, ' + exact + b"]}"

    assert parse_golden(raw) == GoldenSamples((Sample(1, 2, 1e-3), Sample(1, 2, 0.0)), 1.0)


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b"", "JSON"),
        (b"\xff", "JSON"),
        (b"[" * 100_000, "JSON"),
        (b"[]", "samples"),
        (b'{"samples": []}', "samples"),
        (b'{"samples": [{"input": 1}]}', "sample 0"),
        (b'{"samples": [{"input": 1, "expected": 1, "tolerance": -1}]}', "tolerance"),
        (b'{"samples": [{"input": 1, "expected": 1, "tolerance": NaN}]}', "tolerance"),
        (b'{"samples": [{"input": 1, "expected": 1}], "minPass": 1.5}', "minPass"),
        (b'{"samples": [{"input": 1, "expected": 1}], "minPass": true}', "minPass"),
    ],
)
def test_a_wrong_file_is_refused_by_name(raw: bytes, word: str) -> None:
    with pytest.raises(GoldenFileError, match=word):
        parse_golden(raw)


@pytest.mark.parametrize(
    ("agreed", "min_pass", "enough"),
    [(3, 1.0, True), (2, 1.0, False), (2, 0.66, True), (0, 0, True)],
)
def test_the_share_of_agreeing_samples_decides(
    agreed: int, min_pass: float, *, enough: bool
) -> None:
    golden = GoldenSamples((Sample(1, 1),) * 3, min_pass)

    assert is_enough(agreed, golden) is enough
