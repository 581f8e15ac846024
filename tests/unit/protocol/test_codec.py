"""Bytes to messages and back: equal, strict, bounded."""

from __future__ import annotations

import json

import msgspec
import pytest
import strategies
from hostile import each_document, raises_only_ours, refusal
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec, messages
from protocol.errors import Code, InvalidError
from protocol.messages import Ack, DesiredGet, Reported, Telemetry

KINDS = [
    kind
    for kind in vars(messages).values()
    if isinstance(kind, type)
    and issubclass(kind, msgspec.Struct)
    and kind.__module__ == messages.__name__
    and not kind.__name__.startswith("_")
]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


@given(strategies.messages)
def test_a_message_comes_back(message: msgspec.Struct) -> None:
    assert codec.decode(codec.encode(message), type(message)) == message


@given(strategies.messages)
def test_equal_messages_give_equal_bytes(message: msgspec.Struct) -> None:
    again = codec.decode(codec.encode(message), type(message))

    assert codec.encode(again) == codec.encode(message)


def test_the_order_of_keys_does_not_matter() -> None:
    one, two = Reported(1, {"a": 1, "b": 2}), Reported(1, {"b": 2, "a": 1})

    assert codec.encode(one) == codec.encode(two)


@each_kind
@each_document
def test_hostile_bytes_are_refused(raw: bytes, kind: type[msgspec.Struct]) -> None:
    raises_only_ours(lambda data: codec.decode(data, kind), raw)


@each_document
def test_hostile_values_inside_a_message_raise_only_ours(raw: bytes) -> None:
    inside = b'{"revision":1,"reported":{"a":' + raw + b"}}"

    assert refusal(lambda data: codec.decode(data, Reported), inside) in {
        None,  # a value that is JSON is for the twin's rules to judge
        Code.MESSAGE_INVALID,
        Code.TOO_LARGE,
    }


@each_kind
@given(raw=st.binary(max_size=60))
def test_any_bytes_are_refused(raw: bytes, kind: type[msgspec.Struct]) -> None:
    assert refusal(lambda data: codec.decode(data, kind), raw) is Code.MESSAGE_INVALID


@given(strategies.messages)
def test_unknown_fields_are_refused(message: msgspec.Struct) -> None:
    document = {**json.loads(codec.encode(message)), "unknown": 1}

    with pytest.raises(InvalidError, match="unknown field `unknown`"):
        codec.decode(json.dumps(document).encode(), type(message))


def test_an_unknown_fields_name_is_quoted_in_part() -> None:
    raw = b'{"' + b"x" * 10_000 + b'":1}'

    raises_only_ours(lambda data: codec.decode(data, DesiredGet), raw)


def test_the_limit_is_the_callers() -> None:
    raw = codec.encode(DesiredGet(1, 7))

    assert codec.decode(raw, DesiredGet, limit=len(raw)) == DesiredGet(1, 7)
    with pytest.raises(InvalidError, match="DesiredGet message is 20 bytes, the limit is 9") as hit:
        codec.decode(raw, DesiredGet, limit=9)
    assert hit.value.code is Code.TOO_LARGE


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (Telemetry, b'{"epoch":"e","records":[]}'),
        (Telemetry, b'{"epoch":"","records":[]}'),
        (Reported, b'{"revision":0,"reported":{}}'),
        (Reported, b'{"revision":9223372036854775808,"reported":{}}'),
        (Reported, b'{"revision":1.0,"reported":{}}'),
        (DesiredGet, b'{"epoch":0,"have":-1}'),
        (DesiredGet, b'{"epoch":0,"have":true}'),
        (Ack, b'{"epoch":"e","ranges":[[1]]}'),
        (messages.Status, b'{"connected":1}'),
    ],
)
def test_values_out_of_bounds_are_refused(kind: type[msgspec.Struct], raw: bytes) -> None:
    with pytest.raises(InvalidError) as caught:
        codec.decode(raw, kind)
    assert caught.value.code is Code.MESSAGE_INVALID


@pytest.mark.parametrize(("count", "accepted"), [(1000, True), (1001, False)])
def test_a_message_holds_at_most_a_thousand_records(count: int, *, accepted: bool) -> None:
    record = b'{"seq":1,"module":"m","output":"o","at":1,"body":""}'
    raw = b'{"epoch":"e","records":[%b]}' % b",".join([record] * count)

    assert (refusal(lambda data: codec.decode(data, Telemetry), raw) is None) is accepted
