"""Deployments, their members and desired states in SQL."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete

from hub.adapters.sql import tables
from hub.adapters.sql.records import Records
from hub.core.deployment import Deployment, DesiredState, Member
from protocol.ids import DeviceId

_MEMBER = tables.members.c


class SqlDeployments:
    """The `Deployments` port."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._deployments = Records(connection, tables.deployments, Deployment)
        self._members = Records(connection, tables.members, Member)
        self._desired = Records(connection, tables.desired_states, DesiredState)

    def get(self, deployment_id: str) -> Deployment | None:
        """Return one deployment, or None."""
        return self._deployments.get(tables.deployments.c.id == deployment_id)

    def put(self, deployment: Deployment) -> None:
        """Insert or replace."""
        self._deployments.put(deployment)

    def list(self) -> Sequence[Deployment]:
        """Return all, oldest first."""
        columns = tables.deployments.c
        query = self._deployments.select().order_by(columns.created_at, columns.id)
        return self._deployments.all(query)

    def members(self, deployment_id: str) -> Sequence[Member]:
        """Return the devices a deployment reaches, in order of device id."""
        query = self._members.select().where(_MEMBER.deployment_id == deployment_id)
        return self._members.all(query.order_by(_MEMBER.device_id))

    def memberships(self, device_id: DeviceId) -> Sequence[Member]:
        """Return a device's place in every deployment that reaches it, in order of its id."""
        query = self._members.select().where(_MEMBER.device_id == device_id)
        return self._members.all(query.order_by(_MEMBER.deployment_id))

    def put_member(self, member: Member) -> None:
        """Insert or replace by (deployment, device)."""
        self._members.put(member)

    def remove_member(self, deployment_id: str, device_id: DeviceId) -> None:
        """Remove a member; nothing happens when there is none."""
        mine = (_MEMBER.deployment_id == deployment_id) & (_MEMBER.device_id == device_id)
        self._connection.execute(delete(tables.members).where(mine))

    def desired(self, device_id: DeviceId) -> DesiredState | None:
        """Return the newest desired state of a device, or None."""
        return self._desired.get(tables.desired_states.c.device_id == device_id)

    def put_desired(self, state: DesiredState) -> None:
        """Insert or replace the desired state of a device."""
        self._desired.put(state)
