"""Rules that encoding and decoding share: which reason may stand in which packet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.mqtt.errors import MqttProtocolError
from protocol.mqtt.reasons import (
    ALLOWED_REASONS,
    SUBACK_CODES_311,
    ConnectReturn,
    PacketType,
    Version,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_QOS = 2

_CONNACK_CODES_311 = frozenset(ConnectReturn)


def check_reasons(kind: PacketType, reasons: Iterable[int], version: Version) -> None:
    """Raise unless every reason may stand in a packet of this type and version."""
    allowed = ALLOWED_REASONS[kind]
    if version is Version.V311 and kind is PacketType.CONNACK:
        allowed = _CONNACK_CODES_311
    elif version is Version.V311 and kind is PacketType.SUBACK:
        allowed = SUBACK_CODES_311
    for reason in reasons:
        if reason not in allowed:
            raise MqttProtocolError(f"{kind.name} must not carry reason {reason:#04x}")
