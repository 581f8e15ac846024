"""Create options: one text however many keys it is split over."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
import strategies
from hostile import DOCUMENTS, refusal
from hypothesis import given
from hypothesis import strategies as st

from protocol.create_options import join_create_options
from protocol.errors import Code, InvalidError

PATH = "desired"
READABLE = {"800 brackets"}


def agent(settings: Any) -> dict[str, Any]:
    return {"modules": {"m": {"settings": settings}}}


def joined(settings: dict[str, Any]) -> str:
    out = join_create_options(agent(settings), PATH)
    text: str = out["modules"]["m"]["settings"]["createOptions"]
    return text


def numbered(pieces: list[str]) -> dict[str, Any]:
    return {f"createOptions{n:02d}" if n else "createOptions": p for n, p in enumerate(pieces)}


@given(options=strategies.create_options, cuts=st.lists(st.integers(0, 200), max_size=5))
def test_pieces_become_the_text_they_were(options: str, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(options)]
    pieces = [options[a:b] for a, b in itertools.pairwise(edges)]

    assert joined(numbered(pieces)) == options


def test_the_order_of_keys_does_not_matter() -> None:
    settings = {"createOptions02": "1}", "createOptions": "{", "createOptions01": '"a":'}

    assert joined(settings) == '{"a":1}'


def test_a_hundred_pieces_are_the_most() -> None:
    pieces = ["{", *[" "] * 98, "}"]

    assert joined(numbered(pieces)) == "".join(pieces)
    assert refusal_of(numbered([*pieces, " "])) is Code.MANIFEST_INVALID


def refusal_of(settings: dict[str, Any]) -> Code | None:
    return refusal(lambda _: joined(settings), b"")


def test_no_text_means_no_options() -> None:
    assert joined({"createOptions": ""}) == "{}"


def test_settings_without_options_stay_as_they_are() -> None:
    assert join_create_options(agent({"image": "i"}), PATH) == agent({"image": "i"})


def test_other_settings_stay() -> None:
    out = join_create_options(agent({"image": "i", **numbered(["{", "}"])}), PATH)

    assert out == agent({"image": "i", "createOptions": "{}"})


def test_an_object_is_written_as_text() -> None:
    assert joined({"createOptions": {"HostConfig": {"Memory": 1}}}) == '{"HostConfig":{"Memory":1}}'


def test_system_modules_are_joined_too() -> None:
    out = join_create_options(
        {"systemModules": {"edgeHub": {"settings": numbered(["{", "}"])}}}, ""
    )

    assert out["systemModules"]["edgeHub"]["settings"] == {"createOptions": "{}"}


@pytest.mark.parametrize(
    "keys",
    [
        ["createOptions", "createOptions02"],
        ["createOptions01"],
        ["createOptions", "createOptions1"],
        ["createOptions", "createOptions00"],
        ["createOptions", "createOptions01", "createOptions03"],
        ["createOptions", "createOptionsMore"],
    ],
)
def test_a_gap_is_refused(keys: list[str]) -> None:
    with pytest.raises(InvalidError, match="has a gap") as caught:
        joined(dict.fromkeys(keys, "{}"))
    assert "desired.modules.m.settings.createOptions" in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"createOptions": None},
        {"createOptions": 5},
        {"createOptions": []},
        {"createOptions": "{}", "createOptions01": None},
        {"createOptions": {}, "createOptions01": "{}"},
    ],
)
def test_a_piece_that_is_no_text_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidError, match=r"modules\.m\.settings\.createOptions' is not"):
        joined(settings)


@pytest.mark.parametrize("raw", [v for k, v in DOCUMENTS.items() if k not in READABLE and v])
def test_hostile_texts_are_refused(raw: bytes) -> None:
    text = raw.decode(errors="surrogateescape")

    assert refusal_of({"createOptions": text}) in {Code.MANIFEST_INVALID, Code.TOO_LARGE}


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "value", [deep(100_000), {"a": "\ud800"}, {"a": 2**70}], ids=["deep", "half", "big"]
)
def test_an_object_json_cannot_carry_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(InvalidError, match=r"createOptions.* JSON"):
        joined({"createOptions": value})


@pytest.mark.parametrize("modules", [None, [], {"m": 5}, {"m": {}}, {"m": {"settings": 5}}])
def test_parts_of_another_type_are_left_for_the_reader(modules: Any) -> None:
    assert join_create_options({"modules": modules}, PATH) == {"modules": modules}


@given(strategies.json_objects)
def test_any_object_comes_back(options: dict[str, Any]) -> None:
    assert msgspec.json.decode(joined({"createOptions": options})) == options
