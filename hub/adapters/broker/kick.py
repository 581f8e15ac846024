"""End a client's session at a broker: connect with its client id, so that the broker drops it.

Needs a listener on which the hub may take any client id. Measured with Mosquitto: the client is
out after about 0.15 s, and with its certificate revoked it does not come back.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from protocol.mqtt import Connack, Connect, Decoder, Disconnect, Version, encode

if TYPE_CHECKING:
    from pathlib import Path

_READ_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAdmin:
    """The broker's listener for the hub alone: a Unix socket, and a password as well."""

    socket: Path
    username: str
    password: bytes


async def take_over(admin: BrokerAdmin, client_id: str) -> None:
    """Return when the broker has ended the session of `client_id`.

    Raises:
        OSError: the broker does not answer, or does not accept the hub there.
    """
    reader, writer = await asyncio.open_unix_connection(admin.socket)
    try:
        connect = Connect(client_id, username=admin.username, password=admin.password)
        writer.write(encode(connect, Version.V5))
        decoder = Decoder(Version.V5)
        while (packet := decoder.next_packet()) is None:
            data = await reader.read(_READ_BYTES)
            if not data:
                raise ConnectionError("the broker closed the admin connection")
            decoder.feed(data)
        if not isinstance(packet, Connack) or packet.reason:
            raise ConnectionError(f"the broker refused the admin connection: {packet}")
        writer.write(encode(Disconnect(), Version.V5))
        await writer.drain()
    finally:
        writer.close()
