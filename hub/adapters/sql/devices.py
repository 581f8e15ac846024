"""Devices, their claims and the operators' tokens in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, delete, update

from hub.adapters.sql import tables
from hub.adapters.sql.records import Records
from hub.core.device import Claim, Device, Token
from protocol.ids import DeviceId


class SqlDevices:
    """The `Devices` port."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._records = Records(connection, tables.devices, Device)

    def get(self, device_id: DeviceId) -> Device | None:
        """Return one device, or None."""
        return self._records.get(tables.devices.c.id == device_id)

    def put(self, device: Device) -> None:
        """Insert or replace the device, reported state included."""
        self._records.put(device)

    def list(self, *, after: str = "", limit: int | None = None) -> Sequence[Device]:
        """Return devices with ids beyond `after`."""
        ids = tables.devices.c.id
        return self._records.all(
            self._records.select().where(ids > after).order_by(ids).limit(limit)
        )

    def set_connected(self, device_id: DeviceId, *, connected: bool, at: datetime) -> None:
        """Record presence; unknown devices are ignored."""
        self._connection.execute(
            update(tables.devices)
            .where(tables.devices.c.id == device_id)
            .values(connected=connected, last_seen=at)
        )

    def disconnect_all(self) -> None:
        """Mark every device disconnected."""
        online = tables.devices.c.connected
        self._connection.execute(update(tables.devices).where(online).values(connected=False))


class SqlClaims:
    """The `Claims` port."""

    def __init__(self, connection: Connection) -> None:
        self._records = Records(connection, tables.claims, Claim)

    def get(self, secret_hash: str) -> Claim | None:
        """Return one claim, or None."""
        return self._records.get(tables.claims.c.secret_hash == secret_hash)

    def put(self, claim: Claim) -> None:
        """Insert or replace."""
        self._records.put(claim)


class SqlTokens:
    """The `Tokens` port."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._records = Records(connection, tables.tokens, Token)

    def get(self, secret_hash: str) -> Token | None:
        """Return one token, or None."""
        return self._records.get(tables.tokens.c.secret_hash == secret_hash)

    def put(self, token: Token) -> None:
        """Insert or replace."""
        self._records.put(token)

    def forget(self, name: str) -> None:
        """Remove every token of this name."""
        self._connection.execute(delete(tables.tokens).where(tables.tokens.c.name == name))
