from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given

from protocol.mqtt import MqttProtocolError, Reason
from protocol.mqtt.filters import (
    check_topic_filter,
    check_topic_name,
    covers,
    is_shared,
    matches,
)
from tests.unit.protocol.mqtt.mqtt_strategies import topics

MATCHES = [
    ("a/b", "a/b", True),
    ("a/b", "a/b/c", False),
    ("a/+/c", "a/b/c", True),
    ("a/+", "a/", True),
    ("a/+", "a", False),
    ("a/#", "a", True),
    ("a/#", "a/b/c", True),
    ("#", "a/b", True),
    ("+", "/a", False),
    ("+/+", "/a", True),
    ("/+", "/a", True),
    ("#", "$SYS/x", False),
    ("+/x", "$SYS/x", False),
    ("$SYS/#", "$SYS/x", True),
    ("A", "a", False),
]


@pytest.mark.parametrize(("topic_filter", "topic", "expected"), MATCHES)
def test_matches_as_the_standard_says(topic_filter: str, topic: str, *, expected: bool) -> None:
    assert matches(topic_filter, topic) is expected


COVERS = [
    ("d/x/#", "d/x/#", True),
    ("d/x/#", "d/x/+", True),
    ("d/x/#", "d/x", True),
    ("d/x/#", "d/+/#", False),
    ("d/x/#", "#", False),
    ("d/x/#", "d/#", False),
    ("d/+", "d/#", False),
    ("d/+", "d/+", True),
    ("d/x", "d/+", False),
    ("#", "$SYS/x", False),
    ("a/+", "a/b/c", False),
]


@pytest.mark.parametrize(("outer", "inner", "expected"), COVERS)
def test_covers_what_cannot_leave_it(outer: str, inner: str, *, expected: bool) -> None:
    assert covers(outer, inner) is expected


def paths(levels: list[str], longest: int) -> list[str]:
    """Return every path of one to `longest` of the levels."""
    return [
        "/".join(parts) for count in range(longest) for parts in product(levels, repeat=count + 1)
    ]


def test_what_is_covered_never_matches_more() -> None:
    plain = paths(["a", "$a", "+"], 2)
    every = [*plain, "#", *(f"{path}/#" for path in plain)]
    names = paths(["a", "b", "$a"], 3)

    leaks = [
        (outer, inner, name)
        for outer, inner in product(every, repeat=2)
        if covers(outer, inner)
        for name in names
        if matches(inner, name) and not matches(outer, name)
    ]

    assert leaks == []


def test_every_filter_covers_itself() -> None:
    plain = paths(["a", "$a"], 2)

    assert [path for path in plain if not covers(path, path)] == []
    assert [path for path in plain if not covers(f"{path}/#", f"{path}/+/#")] == []


@given(topic=topics)
def test_every_topic_name_is_a_filter_that_matches_itself(topic: str) -> None:
    check_topic_name(topic)

    assert matches(topic, topic)


GOOD = ["a", "+", "#", "/", "a/+/#", "+/a", "$share/g/a/#", "//", "x" * 65_535]
BAD = ["", "a#", "#/a", "a/#/b", "a+", "a/+b", "a\0", "$share/g", "$share/+/a", "$share//a",
       "$share/g/", "$share/g/a#", "x" * 65_536, "é" * 40_000]  # fmt: skip


@pytest.mark.parametrize("topic_filter", GOOD)
def test_accepts_a_filter(topic_filter: str) -> None:
    check_topic_filter(topic_filter)


@pytest.mark.parametrize("topic_filter", BAD)
def test_refuses_what_is_no_filter(topic_filter: str) -> None:
    with pytest.raises(MqttProtocolError) as caught:
        check_topic_filter(topic_filter)

    assert caught.value.reason is Reason.TOPIC_FILTER_INVALID


@pytest.mark.parametrize("topic", ["", "a/+", "#", "a\0b", "é" * 40_000])
def test_refuses_what_is_no_topic_name(topic: str) -> None:
    with pytest.raises(MqttProtocolError) as caught:
        check_topic_name(topic)

    assert caught.value.reason is Reason.TOPIC_NAME_INVALID


def test_knows_a_shared_subscription() -> None:
    assert is_shared("$share/g/a")
    assert not is_shared("a/$share")
