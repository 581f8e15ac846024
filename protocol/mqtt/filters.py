"""Topic names and topic filters: what is valid, what matches, what covers what.

Pure string questions of MQTT 4.7. Must not know which topics Rimward uses.
"""

from __future__ import annotations

from protocol.mqtt.errors import MqttProtocolError
from protocol.mqtt.reasons import Reason

MAX_TOPIC_BYTES = 65_535
SHARE_PREFIX = "$share/"


def check_topic_name(topic: str) -> None:
    """Raise `MqttProtocolError` unless `topic` may be published to."""
    if not topic or "+" in topic or "#" in topic or "\0" in topic:
        raise MqttProtocolError(f"{topic[:80]!r} is not a topic name", Reason.TOPIC_NAME_INVALID)
    _check_length(topic, Reason.TOPIC_NAME_INVALID)


def check_topic_filter(topic_filter: str) -> None:
    """Raise `MqttProtocolError` unless `topic_filter` may be subscribed to (shared included)."""
    if topic_filter.startswith(SHARE_PREFIX):
        _, group, inner = (*topic_filter.split("/", 2), "")[:3]
        if not group or "+" in group or "#" in group:
            raise _not_a_filter(topic_filter)
        _check_levels(inner, topic_filter)
    else:
        _check_levels(topic_filter, topic_filter)
    _check_length(topic_filter, Reason.TOPIC_FILTER_INVALID)


def is_shared(topic_filter: str) -> bool:
    """Return whether the filter asks for a shared subscription."""
    return topic_filter.startswith(SHARE_PREFIX)


def matches(topic_filter: str, topic: str) -> bool:
    """Return whether a valid, not shared filter selects a valid topic name.

    A wildcard in the first level does not select topics that begin with `$`.
    """
    wanted = topic_filter.split("/")
    levels = topic.split("/")
    if topic.startswith("$") and wanted[0] in {"#", "+"}:
        return False
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index == len(levels) or level not in {"+", levels[index]}:
            return False
    return len(wanted) == len(levels)


def covers(outer: str, inner: str) -> bool:
    """Return whether every topic that `inner` selects is selected by `outer`.

    Both are valid, not shared filters.
    """
    wide = outer.split("/")
    narrow = inner.split("/")
    if inner.startswith("$") and wide[0] in {"#", "+"}:
        return False
    for index, level in enumerate(wide):
        if level == "#":
            return True
        if index == len(narrow) or narrow[index] == "#" or level not in {"+", narrow[index]}:
            return False
    return len(wide) == len(narrow)


def _check_levels(topic_filter: str, shown: str) -> None:
    if not topic_filter or "\0" in topic_filter:
        raise _not_a_filter(shown)
    before_hash, found, after_hash = topic_filter.partition("#")
    if found and (after_hash or (before_hash and not before_hash.endswith("/"))):
        raise _not_a_filter(shown)
    if "+" in before_hash and any(
        "+" in level and level != "+" for level in before_hash.split("/")
    ):
        raise _not_a_filter(shown)


def _check_length(text: str, reason: Reason) -> None:
    # a character has at most four bytes: short texts need no encoding to be judged
    if len(text) * 4 > MAX_TOPIC_BYTES and len(text.encode("utf-8", "replace")) > MAX_TOPIC_BYTES:
        raise MqttProtocolError(f"a topic is longer than {MAX_TOPIC_BYTES} bytes", reason)


def _not_a_filter(topic_filter: str) -> MqttProtocolError:
    return MqttProtocolError(
        f"{topic_filter[:80]!r} is not a topic filter", Reason.TOPIC_FILTER_INVALID
    )
