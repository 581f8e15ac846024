"""Every topic of the native protocol; the only place that knows how one is spelled.

A device publishes below `rimward/v1/{device}/up/` and hears below `rimward/v1/{device}/down/`, so
one access pattern per direction guards a whole fleet.
"""

from __future__ import annotations

from enum import StrEnum

from protocol.errors import Code, InvalidError
from protocol.ids import DeviceId, parse_device_id

ROOT = "rimward/v1"


class UpKind(StrEnum):
    """What a device may say to the hub."""

    TELEMETRY = "telemetry"
    REPORTED = "reported"
    DESIRED_GET = "desired-get"
    STATUS = "status"


class DownKind(StrEnum):
    """What the hub may say to a device."""

    ACK = "ack"
    REPORTED_ACK = "reported-ack"
    DESIRED = "desired"


_UP = {kind.value: kind for kind in UpKind}
_DOWN = {kind.value: kind for kind in DownKind}
_PARTS = 5


def up_topic(device: DeviceId, kind: UpKind) -> str:
    """Return the topic a device publishes `kind` on."""
    return f"{ROOT}/{device}/up/{kind.value}"


def down_topic(device: DeviceId, kind: DownKind) -> str:
    """Return the topic a device hears `kind` on."""
    return f"{ROOT}/{device}/down/{kind.value}"


def down_filter(device: DeviceId) -> str:
    """Return the filter that matches everything said to one device."""
    return f"{ROOT}/{device}/down/#"


def all_up_filter() -> str:
    """Return the filter that matches everything any device says: the hub's own subscription."""
    return f"{ROOT}/+/up/+"


def access_patterns(user: str) -> tuple[str, str]:
    """Return (may write, may read) as filters for `user`, which may be a broker's placeholder."""
    return f"{ROOT}/{user}/up/#", f"{ROOT}/{user}/down/#"


def parse_up(topic: str) -> tuple[DeviceId, UpKind]:
    """Split a topic a device published on, or raise InvalidError (`message-invalid`)."""
    device, direction, kind = _split(topic)
    if direction != "up" or kind not in _UP:
        raise _refuse(topic)
    return device, _UP[kind]


def parse_down(topic: str) -> tuple[DeviceId, DownKind]:
    """Split a topic a device hears, or raise InvalidError (`message-invalid`)."""
    device, direction, kind = _split(topic)
    if direction != "down" or kind not in _DOWN:
        raise _refuse(topic)
    return device, _DOWN[kind]


def _split(topic: str) -> tuple[DeviceId, str, str]:
    parts = topic.split("/")
    if len(parts) != _PARTS or f"{parts[0]}/{parts[1]}" != ROOT:
        raise _refuse(topic)
    try:
        return parse_device_id(parts[2]), parts[3], parts[4]
    except InvalidError as error:
        raise _refuse(topic) from error


def _refuse(topic: str) -> InvalidError:
    return InvalidError(
        f"topic {topic[:120]!r} is not one of ours",
        code=Code.MESSAGE_INVALID,
        hint=f"publish below '{ROOT}/<device id>/up/', see docs/protocol.md",
    )
