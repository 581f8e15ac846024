"""The native dialect: topics carry the device id, the certificate is the identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hub.adapters.front.dialect import ConnectRefusedError
from protocol.errors import Code, DeniedError, InvalidError
from protocol.ids import DeviceId, parse_device_id
from protocol.mqtt import Reason
from protocol.mqtt.filters import covers, is_shared
from protocol.topics import DownKind, UpKind, down_filter, down_topic, parse_up

if TYPE_CHECKING:
    from hub.adapters.front.dialect import Peer, Translator
    from protocol.mqtt import Connect


@dataclass(frozen=True, slots=True)
class NativeTranslator:
    """Translator of one device: it names its own topics and nothing else."""

    device: DeviceId

    def inbound(self, topic: str, payload: bytes) -> tuple[UpKind, bytes]:
        """Return the kind of an own `up/` topic, or raise FleetError."""
        device, kind = parse_up(topic)
        if device != self.device:
            raise DeniedError(
                f"device {self.device!r} may not publish as {device!r}", code=Code.FORBIDDEN
            )
        return kind, payload

    def outbound(self, kind: DownKind, body: bytes) -> tuple[str, bytes]:
        """Return the device's own topic for `kind`."""
        return down_topic(self.device, kind), body

    def grants(self, topic_filter: str) -> bool:
        """Return whether the filter stays below the device's own `down/`."""
        return not is_shared(topic_filter) and covers(down_filter(self.device), topic_filter)


class NativeDialect:
    """Devices with a client certificate whose common name is the device id and the client id."""

    def matches(self, connect: Connect, peer: Peer | None) -> bool:  # noqa: ARG002 - the port has both
        """Return whether the client proved who it is."""
        return peer is not None

    def admit(self, connect: Connect, peer: Peer | None) -> Translator:
        """Return the device's translator; the client id must be the certificate's name."""
        if peer is None:
            raise ConnectRefusedError("no client certificate", Reason.NOT_AUTHORIZED)
        try:
            device = parse_device_id(peer.common_name)
        except InvalidError as error:
            raise ConnectRefusedError(str(error), Reason.NOT_AUTHORIZED) from error
        if connect.client_id != device:
            raise ConnectRefusedError(
                f"client id {connect.client_id[:80]!r} is not the certificate's {device!r}",
                Reason.CLIENT_IDENTIFIER_NOT_VALID,
            )
        return NativeTranslator(device)
