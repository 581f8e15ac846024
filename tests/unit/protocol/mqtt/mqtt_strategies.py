"""Generated MQTT packets: every packet type, both versions, every property where it may stand."""

from __future__ import annotations

from functools import cache
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from protocol.mqtt import (
    NO_PROPERTIES,
    Auth,
    Connack,
    Connect,
    ConnectReturn,
    Disconnect,
    Packet,
    PacketType,
    Pingreq,
    Pingresp,
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Version,
    Will,
)
from protocol.mqtt.properties import WILL, Place, property_names
from protocol.mqtt.reasons import ALLOWED_REASONS, SUBACK_CODES_311

text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
binary = st.binary(max_size=40)
packet_ids = st.integers(1, 0xFFFF)
qos = st.integers(0, 2)
levels = st.text(st.characters(exclude_characters="\0+#/", exclude_categories=["Cs"]), max_size=5)
topics = st.lists(levels, min_size=1, max_size=5).map("/".join).filter(bool)
plain_filters = st.builds(
    lambda parts, end: "/".join([*parts, *end]),
    st.lists(levels | st.just("+"), max_size=4),
    st.sampled_from([[], ["#"]]),
).filter(lambda f: bool(f) and not f.startswith("$share/"))
filters = plain_filters | st.builds(
    lambda group, inner: f"$share/{group}/{inner}", levels.filter(bool), plain_filters
)

_FLAGS = {
    "payload_format_indicator",
    "request_problem_information",
    "request_response_information",
    "maximum_qos",
    "retain_available",
    "wildcard_subscription_available",
    "subscription_identifier_available",
    "shared_subscription_available",
}
_U32 = {"message_expiry_interval", "session_expiry_interval", "will_delay_interval"}
_U16 = {"server_keep_alive", "topic_alias_maximum"}
_U16_POSITIVE = {"receive_maximum", "topic_alias"}
_BINARY = {"correlation_data", "authentication_data"}


def _value(name: str, place: Place) -> SearchStrategy[Any]:
    special: dict[str, SearchStrategy[Any]] = {
        "maximum_packet_size": st.integers(1, 0xFFFF_FFFF),
        "user_properties": st.lists(st.tuples(text, text), max_size=3).map(tuple),
        "subscription_identifiers": st.lists(
            st.integers(1, 268_435_455), max_size=1 if place is PacketType.SUBSCRIBE else 3
        ).map(tuple),
        "response_topic": topics,
    }
    groups = (
        (_FLAGS, st.integers(0, 1)),
        (_U32, st.integers(0, 0xFFFF_FFFF)),
        (_U16, st.integers(0, 0xFFFF)),
        (_U16_POSITIVE, st.integers(1, 0xFFFF)),
        (_BINARY, binary),
    )
    for names, strategy in groups:
        if name in names:
            return strategy
    return special.get(name, text)


def _build(values: dict[str, Any]) -> Properties:
    if values.get("authentication_method") is None:
        values.pop("authentication_data", None)
    return Properties(**values)


@cache
def properties(place: Place, version: Version) -> SearchStrategy[Properties]:
    if version is Version.V311:
        return st.just(NO_PROPERTIES)
    optional = {name: _value(name, place) for name in sorted(property_names(place))}
    chosen = st.fixed_dictionaries({}, optional=optional).map(_build)
    return st.just(NO_PROPERTIES) | chosen


def _reasons(kind: PacketType, version: Version) -> SearchStrategy[int]:
    if version is Version.V311:
        return st.just(0)
    return st.sampled_from(sorted(ALLOWED_REASONS[kind]))


def _with_reason(
    build: type[Puback | Pubrec | Pubrel | Pubcomp], kind: PacketType, version: Version
) -> SearchStrategy[Packet]:
    return st.builds(build, packet_ids, _reasons(kind, version), properties(kind, version))


@cache
def publishes(version: Version) -> SearchStrategy[Publish]:
    props = properties(PacketType.PUBLISH, version)
    return st.one_of(
        st.builds(
            lambda topic, payload, retain, p: Publish(
                topic, payload, retain=retain, properties=p
            ),
            topics, binary, st.booleans(), props,
        ),
        st.builds(
            Publish, topics, binary, st.integers(1, 2), packet_ids,
            st.booleans(), st.booleans(), props,
        ),
    )  # fmt: skip


def _connects(version: Version) -> SearchStrategy[Connect]:
    will = st.builds(Will, topics, binary, qos, st.booleans(), properties(WILL, version))
    login = st.tuples(text, st.none() | binary)
    nothing: SearchStrategy[tuple[str | None, bytes | None]] = st.just((None, None))
    credentials = nothing | login
    if version is Version.V5:
        credentials |= st.tuples(st.none(), binary)
    return st.builds(
        lambda client, clean, alive, pair, will, props: Connect(
            client, clean, alive, pair[0], pair[1], will, props
        ),
        text, st.booleans(), st.integers(0, 0xFFFF), credentials, st.none() | will,
        properties(PacketType.CONNECT, version),
    )  # fmt: skip


def _connacks(version: Version) -> SearchStrategy[Connack]:
    kind = PacketType.CONNACK
    props = properties(kind, version)
    codes: frozenset[int] = ALLOWED_REASONS[kind]
    if version is Version.V311:
        codes = frozenset(ConnectReturn)
    refused = st.builds(Connack, st.sampled_from(sorted(codes - {0})), st.just(value=False), props)
    return st.builds(Connack, st.just(0), st.booleans(), props) | refused


def _subscriptions(version: Version) -> SearchStrategy[Subscription]:
    if version is Version.V311:
        return st.builds(Subscription, filters, qos)
    return st.builds(Subscription, filters, qos, st.booleans(), st.booleans(), st.integers(0, 2))


def _many(items: SearchStrategy[Any]) -> SearchStrategy[Any]:
    return st.lists(items, min_size=1, max_size=4).map(tuple)


@cache
def packets(version: Version) -> SearchStrategy[Packet]:
    kind = PacketType
    suback = SUBACK_CODES_311 if version is Version.V311 else ALLOWED_REASONS[kind.SUBACK]
    unsuback = (
        st.just(())
        if version is Version.V311
        else _many(st.sampled_from(sorted(ALLOWED_REASONS[kind.UNSUBACK])))
    )
    every: list[SearchStrategy[Packet]] = [
        _connects(version),
        _connacks(version),
        publishes(version),
        _with_reason(Puback, kind.PUBACK, version),
        _with_reason(Pubrec, kind.PUBREC, version),
        _with_reason(Pubrel, kind.PUBREL, version),
        _with_reason(Pubcomp, kind.PUBCOMP, version),
        st.builds(
            Subscribe, packet_ids, _many(_subscriptions(version)),
            properties(kind.SUBSCRIBE, version),
        ),
        st.builds(
            Suback, packet_ids, _many(st.sampled_from(sorted(suback))),
            properties(kind.SUBACK, version),
        ),
        st.builds(
            Unsubscribe, packet_ids, _many(filters), properties(kind.UNSUBSCRIBE, version)
        ),
        st.builds(Unsuback, packet_ids, unsuback, properties(kind.UNSUBACK, version)),
        st.just(Pingreq()),
        st.just(Pingresp()),
        st.builds(
            Disconnect, _reasons(kind.DISCONNECT, version), properties(kind.DISCONNECT, version)
        ),
    ]  # fmt: skip
    if version is Version.V5:
        every.append(st.builds(Auth, _reasons(kind.AUTH, version), properties(kind.AUTH, version)))
    return st.one_of(every)


versions = st.sampled_from(list(Version))
streams = versions.flatmap(
    lambda version: st.tuples(st.just(version), st.lists(packets(version), max_size=5))
)
