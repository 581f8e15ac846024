"""What a dialect of the front has to know: topics, and who may name which.

The connection machinery knows packets and no topics; a dialect knows topics and no packets other
than CONNECT. It is chosen once, at CONNECT.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from protocol.ids import DeviceId
    from protocol.mqtt import Connect, Reason
    from protocol.topics import DownKind, UpKind


@dataclass(frozen=True, slots=True)
class Peer:
    """Who the TLS handshake proved the client to be."""

    common_name: str
    certificate_der: bytes


class ConnectRefusedError(Exception):
    """A CONNECT that must not succeed; `reason` goes into CONNACK."""

    def __init__(self, message: str, reason: Reason) -> None:
        super().__init__(message)
        self.reason = reason


class Translator(Protocol):
    """One client's view of the topics; it can name only what belongs to its device."""

    @property
    def device(self) -> DeviceId:
        """The device behind the connection."""
        ...

    def inbound(self, topic: str, payload: bytes) -> tuple[UpKind, bytes]:
        """Return what a PUBLISH means, or raise FleetError when the client may not send it."""
        ...

    def outbound(self, kind: DownKind, body: bytes) -> tuple[str, bytes]:
        """Return topic and payload of a message for the client."""
        ...

    def grants(self, topic_filter: str) -> bool:
        """Return whether the filter matches nothing but what the client may hear."""
        ...


class Dialect(Protocol):
    """Recognises its clients and translates for them."""

    def matches(self, connect: Connect, peer: Peer | None) -> bool:
        """Return whether this dialect is the one the client speaks."""
        ...

    def admit(self, connect: Connect, peer: Peer | None) -> Translator:
        """Return the client's translator, or raise ConnectRefusedError."""
        ...
