"""What a CONNECT asks for and how it is answered, as functions.

Decides which client is refused before the hub is asked. Must not do I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.adapters.front.dialect import ConnectRefusedError
from protocol.errors import FleetError
from protocol.mqtt import Connack, Connect, ConnectReturn, Properties, Reason, Version

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hub.adapters.front.dialect import Dialect, Peer, Translator
    from hub.adapters.front.limits import FrontLimits

_RETURNS = {
    Reason.UNSUPPORTED_PROTOCOL_VERSION: ConnectReturn.UNACCEPTABLE_PROTOCOL_VERSION,
    Reason.CLIENT_IDENTIFIER_NOT_VALID: ConnectReturn.IDENTIFIER_REJECTED,
    Reason.SERVER_UNAVAILABLE: ConnectReturn.SERVER_UNAVAILABLE,
}


def choose_translator(
    connect: Connect, peer: Peer | None, dialects: Iterable[Dialect]
) -> Translator:
    """Return the client's translator, or raise ConnectRefusedError."""
    if connect.properties.authentication_method is not None:
        raise ConnectRefusedError("enhanced login", Reason.BAD_AUTHENTICATION_METHOD)
    for dialect in dialects:
        if dialect.matches(connect, peer):
            translator = dialect.admit(connect, peer)
            _check_will(connect, translator)
            return translator
    raise ConnectRefusedError("no dialect knows this client", Reason.NOT_AUTHORIZED)


def refuse(reason: Reason, version: Version) -> Connack:
    """Return the CONNACK that says no."""
    if version is Version.V311:
        return Connack(_RETURNS.get(reason, ConnectReturn.NOT_AUTHORIZED))
    return Connack(reason)


def accept(connect: Connect, version: Version, limits: FrontLimits) -> tuple[Connack, int]:
    """Return the CONNACK that says yes and the keep alive agreed on, in seconds (0: none)."""
    if version is Version.V311:
        return Connack(), connect.keep_alive
    longest = limits.max_keep_alive_seconds
    keep_alive = min(connect.keep_alive or longest, longest)
    capabilities = Properties(
        session_expiry_interval=0,
        receive_maximum=limits.max_inflight,
        maximum_qos=1,
        retain_available=0,
        maximum_packet_size=limits.max_packet_bytes,
        subscription_identifier_available=0,
        shared_subscription_available=0,
        server_keep_alive=None if keep_alive == connect.keep_alive else keep_alive,
    )
    return Connack(properties=capabilities), keep_alive


def _check_will(connect: Connect, translator: Translator) -> None:
    """Refuse a will the client could not publish itself.

    A good one is accepted and not published: `disconnected` tells the handler the same, and sooner.
    """
    will = connect.will
    if will is None:
        return
    if will.qos > 1:
        raise ConnectRefusedError("a will with QoS 2", Reason.QOS_NOT_SUPPORTED)
    if will.retain:
        raise ConnectRefusedError("a retained will", Reason.RETAIN_NOT_SUPPORTED)
    try:
        translator.inbound(will.topic, will.payload)
    except FleetError as error:
        raise ConnectRefusedError(str(error), Reason.NOT_AUTHORIZED) from error
