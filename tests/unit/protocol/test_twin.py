"""Twins: merge and diff, and the rules of keys and values."""

from __future__ import annotations

from typing import Any

import pytest
import strategies
from hypothesis import given

from protocol.errors import Code, InvalidError
from protocol.twin import MAX_DEPTH, check_patch, diff, merge, same


def nested(levels: int, *, arrays: bool = False) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value] if arrays else {"a": value}
    return value


@pytest.mark.parametrize(
    ("base", "patch", "expected"),
    [
        ({"a": 1, "b": {"c": 2}}, {"b": {"c": None}}, {"a": 1, "b": {}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"x": 1}}, {"a": 5}, {"a": 5}),
        ({"a": 5}, {"a": {"x": 1}}, {"a": {"x": 1}}),
        ({"a": 1}, {"zz": None}, {"a": 1}),
        ({}, {"n": {"x": None, "y": 1}}, {"n": {"y": 1}}),
        ({"a": 1}, {}, {"a": 1}),
        ({"a": 1}, 7, 7),
        (7, {"a": 1}, {"a": 1}),
    ],
)
def test_merges(base: Any, patch: Any, expected: Any) -> None:
    assert merge(base, patch) == expected


@given(before=strategies.twins, after=strategies.twins)
def test_the_difference_leads_from_one_to_the_other(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    assert same(merge(before, diff(before, after)), after)


@given(strategies.twins)
def test_nothing_differs_from_itself(document: dict[str, Any]) -> None:
    assert diff(document, document) == {}


@given(base=strategies.twins, patch=strategies.twins)
def test_merging_twice_is_merging_once(base: dict[str, Any], patch: dict[str, Any]) -> None:
    once = merge(base, patch)

    assert same(merge(once, patch), once)


@given(base=strategies.twins, patch=strategies.twins)
def test_merging_leaves_its_arguments_alone(base: dict[str, Any], patch: dict[str, Any]) -> None:
    copies = merge({}, base), merge({}, patch)
    merge(base, patch)

    assert same((base, patch), copies) or copies == (base, patch)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"a": 1}, {}, {"a": None}),
        ({}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, {"a": {"c": 3}}),
        ({"a": {"b": 1}}, {"a": {}}, {"a": {"b": None}}),
        ({"a": [1]}, {"a": [1, 2]}, {"a": [1, 2]}),
        ({"a": 1}, {"a": True}, {"a": True}),
    ],
)
def test_the_difference_is_the_smallest(
    before: dict[str, Any], after: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert diff(before, after) == expected


@pytest.mark.parametrize(
    ("left", "right"),
    [(1, 1.0), (1, True), (0, False), ("1", 1), ([1], [1.0]), ({"a": 1}, {"a": True}), ([], {})],
)
def test_json_values_of_other_types_differ(left: Any, right: Any) -> None:
    assert not same(left, right)


@given(strategies.json_values)
def test_every_value_is_the_same_as_itself(value: Any) -> None:
    assert same(value, value)


@given(strategies.json_objects)
def test_accepts_what_the_rules_allow(patch: dict[str, Any]) -> None:
    assert check_patch(patch) is patch


def test_accepts_null_because_it_removes() -> None:
    assert check_patch({"a": None}) == {"a": None}


@pytest.mark.parametrize("arrays", [False, True])
def test_accepts_ten_levels(*, arrays: bool) -> None:
    patch = {"top": nested(MAX_DEPTH - 1, arrays=arrays)}

    assert check_patch(patch) == patch


@pytest.mark.parametrize("arrays", [False, True])
def test_refuses_eleven_levels(*, arrays: bool) -> None:
    with pytest.raises(InvalidError, match="nested too deep") as caught:
        check_patch({"top": nested(MAX_DEPTH, arrays=arrays)})
    assert caught.value.code is Code.TWIN_INVALID


@pytest.mark.parametrize("arrays", [False, True])
def test_refuses_any_depth(*, arrays: bool) -> None:
    with pytest.raises(InvalidError, match="nested too deep"):
        check_patch({"top": nested(100_000, arrays=arrays)})


@pytest.mark.parametrize("patch", [None, [], 1, "text"])
def test_refuses_what_is_not_an_object(patch: Any) -> None:
    with pytest.raises(InvalidError, match="tags is not an object"):
        check_patch(patch, what="tags")


@pytest.mark.parametrize(
    "key",
    ["", "a.b", "$a", "a b", "a\n", "\0", "\x7f", "\x85", "\ud800", "x" * 1025, "ä" * 513],
    ids=ascii,
)
def test_refuses_keys(key: str) -> None:
    with pytest.raises(InvalidError, match=r"in 'twin patch\.a' is not allowed"):
        check_patch({"a": {key: 1}})


def test_accepts_a_key_of_1024_bytes() -> None:
    assert check_patch({"ä" * 512: 1})


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 2**64, -(2**63) - 1, "\udfff"], ids=ascii
)
def test_refuses_values_the_wire_cannot_carry(value: Any) -> None:
    with pytest.raises(InvalidError, match=r"'twin patch\.a' is not allowed"):
        check_patch({"a": [value]})


def test_keys_inside_arrays_obey_the_rules_too() -> None:
    with pytest.raises(InvalidError, match="is not allowed"):
        check_patch({"a": [{"b.c": 1}]})
