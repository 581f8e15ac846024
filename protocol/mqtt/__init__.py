"""MQTT 3.1.1 and 5 as a sans-IO codec, client side and server side.

`encode` turns a packet into bytes, `Decoder` turns bytes into packets; both refuse what the
standard forbids with `MqttProtocolError`. Nothing here opens a socket.
"""

from protocol.mqtt.decoder import DEFAULT_MAX_PACKET_BYTES, Decoder
from protocol.mqtt.encoding import encode
from protocol.mqtt.errors import MqttProtocolError
from protocol.mqtt.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
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
    Will,
)
from protocol.mqtt.properties import NO_PROPERTIES, Properties
from protocol.mqtt.reasons import ConnectReturn, PacketType, Reason, Version

__all__ = [
    "DEFAULT_MAX_PACKET_BYTES",
    "NO_PROPERTIES",
    "Auth",
    "Connack",
    "Connect",
    "ConnectReturn",
    "Decoder",
    "Disconnect",
    "MqttProtocolError",
    "Packet",
    "PacketType",
    "Pingreq",
    "Pingresp",
    "Properties",
    "Puback",
    "Pubcomp",
    "Publish",
    "Pubrec",
    "Pubrel",
    "Reason",
    "Suback",
    "Subscribe",
    "Subscription",
    "Unsuback",
    "Unsubscribe",
    "Version",
    "Will",
    "encode",
]
