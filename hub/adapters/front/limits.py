"""The bounds of the MQTT front: bytes, items and seconds, in one value."""

from __future__ import annotations

from dataclasses import dataclass

_KIB = 1024
_MIB = 1024 * _KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontLimits:
    """What one peer, and all peers together, may use.

    Attributes:
        max_connections: Open sockets, handshakes included; more are closed at once.
        max_handshakes: TLS handshakes at a time; more wait in the kernel's backlog.
        handshake_seconds: Time for the TLS handshake.
        connect_seconds: Time from the handshake to a whole CONNECT.
        admit_seconds: Time for the handler to decide about a device, and for an older session of
            the same device to end.
        max_packet_bytes: Largest packet taken from a device.
        max_inflight: Messages of one device handled at a time; further ones are not read.
        max_inflight_bytes: The same in bytes of payload.
        max_unacknowledged: Messages sent to a device before it has to acknowledge one.
        max_outgoing_bytes: Waiting for one device; it is dropped when more would wait.
        slow_reader_seconds: How long a device may take nothing while something waits for it.
        max_filters: Filters granted in one SUBSCRIBE.
        max_keep_alive_seconds: Longest keep alive agreed with version 5 clients.
        drain_seconds: Time for messages in flight when the front stops.
        close_seconds: Time for a peer to take the last bytes of a connection.
    """

    max_connections: int = 20_000
    max_handshakes: int = 4_096
    handshake_seconds: float = 10.0
    connect_seconds: float = 10.0
    admit_seconds: float = 10.0
    max_packet_bytes: int = _MIB
    max_inflight: int = 32
    max_inflight_bytes: int = 2 * _MIB
    max_unacknowledged: int = 64
    max_outgoing_bytes: int = 4 * _MIB
    slow_reader_seconds: float = 10.0
    max_filters: int = 64
    max_keep_alive_seconds: int = 1_200
    drain_seconds: float = 5.0
    close_seconds: float = 2.0
