"""The one error of the MQTT codec. It decides nothing; it carries the reason to the peer."""

from __future__ import annotations

from protocol.mqtt.reasons import Reason


class MqttProtocolError(Exception):
    """Bytes or a packet that MQTT forbids.

    `reason` is the MQTT 5 reason code to send in DISCONNECT or CONNACK. Nothing after the
    offending byte can be trusted: the connection has to be closed.
    """

    def __init__(self, message: str, reason: Reason = Reason.MALFORMED_PACKET) -> None:
        super().__init__(message)
        self.reason = reason
