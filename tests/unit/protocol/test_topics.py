"""Topics: built and split in one place, guarded by one pattern per direction."""

from __future__ import annotations

import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from protocol import topics
from protocol.errors import Code, InvalidError
from protocol.ids import DeviceId
from protocol.topics import DownKind, UpKind

PI = DeviceId("pi-7")


@given(device=strategies.device_ids, kind=st.sampled_from(UpKind))
def test_what_a_device_says_comes_back(device: DeviceId, kind: UpKind) -> None:
    assert topics.parse_up(topics.up_topic(device, kind)) == (device, kind)


@given(device=strategies.device_ids, kind=st.sampled_from(DownKind))
def test_what_a_device_hears_comes_back(device: DeviceId, kind: DownKind) -> None:
    assert topics.parse_down(topics.down_topic(device, kind)) == (device, kind)


def test_spells_the_topics() -> None:
    assert topics.up_topic(PI, UpKind.DESIRED_GET) == "rimward/v1/pi-7/up/desired-get"
    assert topics.down_topic(PI, DownKind.REPORTED_ACK) == "rimward/v1/pi-7/down/reported-ack"


def test_one_filter_per_direction_covers_every_kind() -> None:
    assert topics.down_filter(PI) == "rimward/v1/pi-7/down/#"
    assert topics.all_up_filter() == "rimward/v1/+/up/+"
    assert topics.access_patterns("%u") == ("rimward/v1/%u/up/#", "rimward/v1/%u/down/#")


@pytest.mark.parametrize("kind", list(UpKind))
def test_the_hubs_filter_has_as_many_levels_as_a_topic(kind: UpKind) -> None:
    levels = topics.up_topic(PI, kind).count("/")

    assert topics.all_up_filter().count("/") == levels


NEITHER = [
    "",
    "rimward",
    "rimward/v1/pi-7",
    "rimward/v2/pi-7/up/status",
    "other/v1/pi-7/up/status",
    "rimward/v1/Pi_7/up/status",
    "rimward/v1//up/status",
    "rimward/v1/+/up/status",
    "rimward/v1/pi-7/up/status/more",
    "rimward/v1/pi-7/sideways/status",
    "rimward/v1/pi-7/up/nonsense",
    "rimward/v1/pi-7/down/nonsense",
    "/" * 70_000,
]


@pytest.mark.parametrize("topic", [*NEITHER, "rimward/v1/pi-7/down/ack"])
def test_refuses_what_no_device_says(topic: str) -> None:
    with pytest.raises(InvalidError, match="is not one of ours") as caught:
        topics.parse_up(topic)
    assert caught.value.code is Code.MESSAGE_INVALID


@pytest.mark.parametrize("topic", [*NEITHER, "rimward/v1/pi-7/up/status"])
def test_refuses_what_no_device_hears(topic: str) -> None:
    with pytest.raises(InvalidError, match="is not one of ours"):
        topics.parse_down(topic)


@given(st.text(max_size=60))
def test_any_topic_is_accepted_or_refused(topic: str) -> None:
    try:
        device, kind = topics.parse_up(topic)
    except InvalidError:
        return
    assert topics.up_topic(device, kind) == topic
