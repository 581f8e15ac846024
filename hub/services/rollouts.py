"""The steps of a rollout inside a transaction of the caller; begins and commits none itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from hub.core import desired, rollout
from hub.core.deployment import (
    Deployment,
    DeploymentState,
    DesiredState,
    Member,
    MemberState,
)
from hub.core.device import Device, DeviceState
from hub.core.ports import Clock, Director, UnitOfWork
from hub.core.reported import outcome
from hub.core.targeting import parse_condition
from protocol.errors import Code
from protocol.ids import DeviceId

EPOCH = 1
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Rollouts:
    """Writes down what `hub.core.rollout` decides."""

    clock: Clock
    director: Director

    def advance(self, work: UnitOfWork, deployment: Deployment) -> list[DeviceId]:
        """Do everything that is due now; return the devices that have a new desired state."""
        now = self.clock.now()
        changed: list[DeviceId] = []
        while True:
            members = self._time_out(work, deployment, now)
            match _decide(deployment, members, now):
                case rollout.Dispatch(wave, devices):
                    changed += self._dispatch(work, members, devices, wave)
                case rollout.Abort(reason):
                    return changed + self.abort(work, deployment, reason)
                case rollout.Done() if deployment.state is DeploymentState.ROLLING:
                    deployment = replace(deployment, state=DeploymentState.DONE)
                    work.deployments.put(deployment)
                    log.info("deployment.done", deployment=deployment.id)
                case _:
                    return changed

    def is_due(self, work: UnitOfWork, deployment: Deployment) -> bool:
        """Tell whether `advance` would do anything by now."""
        now, members = self.clock.now(), work.deployments.members(deployment.id)
        if rollout.silent(deployment.policy, members, now):
            return True
        return not isinstance(_decide(deployment, members, now), rollout.Wait)

    def enlist(self, work: UnitOfWork, deployment: Deployment, devices: Iterable[Device]) -> bool:
        """Take in the devices a deployment is for and let the others go; tell whether any moved."""
        condition = parse_condition(deployment.condition)
        there = {m.device_id for m in work.deployments.members(deployment.id)}
        moved = False
        for device in devices:
            wanted = device.state is DeviceState.ENROLLED and condition.matches(
                desired.facts(device)
            )
            if wanted is (device.id in there):
                continue
            moved = True
            if wanted:
                now = self.clock.now()
                member = Member(deployment.id, device.id, MemberState.WAITING, now)
                work.deployments.put_member(member)
            else:
                work.deployments.remove_member(deployment.id, device.id)
        return moved

    def abort(self, work: UnitOfWork, deployment: Deployment, reason: str) -> list[DeviceId]:
        """Take a deployment back; return the devices that have a new desired state."""
        work.deployments.put(
            replace(deployment, state=DeploymentState.ABORTED, reason=reason[:1000])
        )
        log.warning("deployment.aborted", deployment=deployment.id, reason=reason)
        reached = [
            m.device_id for m in work.deployments.members(deployment.id) if m.wave is not None
        ]
        return [device for device in reached if self.render(work, device, left=deployment.id)]

    def render(
        self, work: UnitOfWork, device_id: DeviceId, *, left: str = ""
    ) -> DesiredState | None:
        """Give a device the deployment it shall follow now; None when it has that already.

        A device keeps what it has when no deployment reaches it any more, unless that came from
        `left`, which was taken back: then it runs nothing.
        """
        memberships = work.deployments.memberships(device_id)
        found = {
            m.deployment_id: d
            for m in memberships
            if (d := work.deployments.get(m.deployment_id)) is not None
        }
        rendering, current = self.rendering(device_id), work.deployments.desired(device_id)
        chosen = desired.winner(memberships, found)
        if chosen is None and current is not None and current.deployment_id == left:
            chosen = desired.nothing(rendering.now)
        if chosen is None:
            return None
        state = desired.render(chosen, current, rendering)
        if state is None:
            return None
        work.deployments.put_desired(state)
        for member in memberships:
            if member.deployment_id == chosen.id:
                sent = _settled(member, MemberState.DISPATCHED, rendering.now)
                work.deployments.put_member(replace(sent, version=state.version))
            elif member.state is MemberState.DISPATCHED:
                # Who follows a stronger deployment has nothing to prove for this one.
                work.deployments.put_member(_settled(member, MemberState.SUCCEEDED, rendering.now))
        return state

    def rendering(self, device_id: DeviceId) -> desired.Rendering:
        """Return what goes into a desired state of a device besides the manifest."""
        return desired.Rendering(device_id, EPOCH, self.clock.now(), self.director.seal)

    def reached(self, work: UnitOfWork, device: Device) -> Member | None:
        """Return where a device's report puts it in the deployment it follows; None: no news."""
        state = work.deployments.desired(device.id)
        ended = outcome(device.reported, state.version) if state else None
        if state is None or ended is None:
            return None
        members = {m.deployment_id: m for m in work.deployments.memberships(device.id)}
        member = members.get(state.deployment_id)
        if member is None or member.state is not MemberState.DISPATCHED:
            return None
        return replace(
            member,
            state=ended.state,
            code=ended.code,
            message=ended.message[:500],
            since=self.clock.now(),
        )

    def _dispatch(
        self,
        work: UnitOfWork,
        members: Sequence[Member],
        devices: Sequence[DeviceId],
        wave: int,
    ) -> list[DeviceId]:
        changed, now = [], self.clock.now()
        by_device = {m.device_id: m for m in members}
        for device_id in devices:
            member = _settled(by_device[device_id], MemberState.DISPATCHED, now)
            work.deployments.put_member(replace(member, wave=wave))
            if self.render(work, device_id):
                changed.append(device_id)
            else:
                self._count(work, replace(member, wave=wave))
        log.info("deployment.dispatched", deployment=members[0].deployment_id, devices=len(devices))
        return changed

    def _count(self, work: UnitOfWork, member: Member) -> None:
        """Settle a member whose device was sent nothing: it has this already, or a stronger one."""
        current = work.deployments.desired(member.device_id)
        member = replace(member, version=current.version if current else 0)
        if current is None or current.deployment_id != member.deployment_id:
            work.deployments.put_member(replace(member, state=MemberState.SUCCEEDED))
            return
        work.deployments.put_member(member)
        device = work.devices.get(member.device_id)
        if device and (ended := self.reached(work, device)):
            work.deployments.put_member(ended)

    def _time_out(
        self, work: UnitOfWork, deployment: Deployment, now: datetime
    ) -> Sequence[Member]:
        members = work.deployments.members(deployment.id)
        silent = rollout.silent(deployment.policy, members, now)
        for member in silent:
            limit = deployment.policy.silent_seconds
            late = replace(
                member,
                state=MemberState.FAILED,
                since=now,
                code=Code.DEVICE_SILENT,
                message=f"the device told no outcome within {limit:g} s of the dispatch",
            )
            work.deployments.put_member(late)
            log.warning("deployment.silent", deployment=deployment.id, device=member.device_id)
        return work.deployments.members(deployment.id) if silent else members


def _decide(deployment: Deployment, members: Sequence[Member], now: datetime) -> rollout.Decision:
    """A finished rollout only takes in newcomers: they cannot abort what has succeeded."""
    if deployment.state is DeploymentState.DONE:
        waiting = [m.device_id for m in members if m.state is MemberState.WAITING]
        return (
            rollout.Dispatch(len(deployment.policy.waves), tuple(waiting))
            if waiting
            else rollout.Done()
        )
    return rollout.decide(deployment.policy, members, now)


def _settled(member: Member, state: MemberState, now: datetime) -> Member:
    return replace(member, state=state, since=now, code="", message="")
