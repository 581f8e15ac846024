"""JSON from outside: what JSON is, and everything that only looks like it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import strategies
from hostile import DOCUMENTS, refusal
from hypothesis import given
from hypothesis import strategies as st

from protocol import strict_json
from protocol.errors import Code, InvalidError

READABLE = {"800 brackets"}


def parse(raw: bytes) -> dict[str, Any]:
    return strict_json.parse_object(raw, limit=1_000_000, code=Code.PROFILE_INVALID, what="thing")


@given(strategies.json_objects)
def test_reads_what_json_can_say(value: dict[str, Any]) -> None:
    assert parse(json.dumps(value).encode()) == value


@given(strategies.json_objects)
def test_reads_text_that_is_not_escaped(value: dict[str, Any]) -> None:
    assert parse(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize("raw", [v for k, v in DOCUMENTS.items() if k not in READABLE])
def test_refuses_with_the_callers_code(raw: bytes) -> None:
    assert refusal(parse, raw) in {Code.PROFILE_INVALID, Code.TOO_LARGE}


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    assert refusal(parse, raw) in {None, Code.PROFILE_INVALID}


def test_names_the_limit() -> None:
    with pytest.raises(InvalidError, match="thing is 3 bytes, the limit is 2") as caught:
        strict_json.parse_object(b"{} ", limit=2, code=Code.PROFILE_INVALID, what="thing")
    assert caught.value.code is Code.TOO_LARGE


def test_names_the_key_that_stands_twice() -> None:
    with pytest.raises(InvalidError, match="key 'b' stands twice"):
        parse(b'{"x":{"a":1,"b":2,"c":3,"b":4}}')


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**30])
def test_refuses_integers_beyond_64_bits(number: int) -> None:
    with pytest.raises(InvalidError, match="more than 64 bits"):
        parse(b'{"a":%d}' % number)


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 0])
def test_reads_every_integer_of_64_bits(number: int) -> None:
    assert parse(b'{"a":%d}' % number) == {"a": number}


def test_reads_whole_surrogate_pairs() -> None:
    assert parse(b'{"a":"\\ud83d\\ude00"}') == {"a": "\N{GRINNING FACE}"}
