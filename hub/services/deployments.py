"""Deployments: create, roll out wave by wave, take back; and what each device shall run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import msgspec
import structlog

from hub.core import desired, rollout
from hub.core.deployment import (
    Deployment,
    DeploymentState,
    DesiredState,
    Member,
    MemberState,
    RolloutPolicy,
)
from hub.core.device import Device, DeviceState
from hub.core.ports import Clock, Director, Store, UnitOfWork
from hub.core.reported import outcome
from hub.core.targeting import parse_condition
from hub.services.images import ImageService
from protocol.errors import Code, ConflictError, NotFoundError
from protocol.ids import DeviceId, parse_deployment_id
from protocol.manifest import parse_manifest

EPOCH = 1
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Draft:
    """What an operator asks for."""

    id: str
    manifest: bytes
    condition: str
    priority: int = 0
    policy: RolloutPolicy = field(default_factory=RolloutPolicy)
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeploymentService:
    """Use cases around deployments.

    `announce` is called after the commit with the devices that have a new desired state.
    """

    store: Store
    clock: Clock
    director: Director
    images: ImageService
    announce: Callable[[Iterable[DeviceId]], None]

    def create(self, draft: Draft) -> Deployment:
        """Check, pin and store a deployment, and start its first wave.

        Creating the same content under the same id again changes nothing.

        Raises:
            InvalidError: `manifest-invalid`, `condition-invalid`, `id-invalid`.
            NotFoundError: `image-unknown`, for an image the registry does not have.
            ConflictError: `deployment-exists` with other content, `state-conflict` for an image
                that is not ready.
        """
        parse_deployment_id(draft.id)
        parse_condition(draft.condition)
        parse_manifest(draft.manifest)
        pinned = desired.with_images(
            msgspec.json.decode(draft.manifest), self.images.pin, self.images.golden
        )
        raw = msgspec.json.encode(pinned, order="deterministic")
        parse_manifest(raw)
        deployment = Deployment(
            id=draft.id,
            manifest=raw.decode(),
            condition=draft.condition,
            priority=draft.priority,
            created_at=self.clock.now(),
            policy=draft.policy,
            labels=draft.labels,
            models=self.images.models_in(desired.images_of(pinned)),
        )
        with self.store.begin() as work:
            existing = work.deployments.get(draft.id)
            if existing is not None:
                return _same(existing, deployment)
            work.deployments.put(deployment)
            self._enlist(work, deployment, work.devices.list())
            work.commit()
        log.info("deployment.created", deployment=deployment.id, condition=deployment.condition)
        self.advance()
        return self.get(draft.id)

    def get(self, deployment_id: str) -> Deployment:
        """Return one deployment, or raise NotFoundError (`deployment-unknown`)."""
        with self.store.begin(write=False) as work:
            found = work.deployments.get(deployment_id)
        if found is None:
            raise NotFoundError(
                f"no deployment {deployment_id!r}",
                code=Code.DEPLOYMENT_UNKNOWN,
                hint="list them with `rimward deployment list`",
            )
        return found

    def all(self) -> Sequence[Deployment]:
        """Return all deployments, oldest first."""
        with self.store.begin(write=False) as work:
            return work.deployments.list()

    def members(self, deployment_id: str) -> Sequence[Member]:
        """Return the devices of a deployment and how far it got on each."""
        self.get(deployment_id)
        with self.store.begin(write=False) as work:
            return work.deployments.members(deployment_id)

    def desired(self, device_id: DeviceId) -> DesiredState | None:
        """Return the newest desired state of a device, or None."""
        with self.store.begin(write=False) as work:
            return work.deployments.desired(device_id)

    def abort(self, deployment_id: str, reason: str) -> Deployment:
        """Take a deployment back: its devices return to what they followed before."""
        self.get(deployment_id)
        with self.store.begin() as work:
            found = work.deployments.get(deployment_id)
            changed = self._abort(work, found, reason) if found else []
            work.commit()
        self.announce(changed)
        return self.get(deployment_id)

    def device_changed(self, device_id: DeviceId) -> None:
        """Enlist a device that is new or whose tags changed, and give it what it shall run."""
        with self.store.begin() as work:
            device = work.devices.get(device_id)
            if device is None:
                return
            for deployment in work.deployments.list():
                if deployment.state is not DeploymentState.ABORTED:
                    self._enlist(work, deployment, [device])
            work.commit()
        self.advance()

    def device_reported(self, device: Device) -> None:
        """Take note of how an update ended on a device, and go on with its rollout."""
        with self.store.begin() as work:
            state = work.deployments.desired(device.id)
            ended = state and outcome(device.reported, state.version)
            members = {m.deployment_id: m for m in work.deployments.memberships(device.id)}
            member = members.get(state.deployment_id) if state else None
            if not ended or member is None or member.state is not MemberState.DISPATCHED:
                return
            work.deployments.put_member(
                replace(
                    member,
                    state=ended.state,
                    code=ended.code,
                    message=ended.message[:500],
                    since=self.clock.now(),
                )
            )
            work.commit()
        log.info(
            "deployment.reached",
            deployment=member.deployment_id,
            device=device.id,
            state=ended.state,
            code=ended.code,
        )
        self.advance()

    def tick(self) -> None:
        """Do what has become due by the passing of time alone: silence, the end of a soak."""
        if any(d.state is DeploymentState.ROLLING for d in self.all()):
            self.advance()

    def advance(self) -> None:
        """Do everything that is due now in every rollout."""
        changed: list[DeviceId] = []
        with self.store.begin() as work:
            for deployment in work.deployments.list():
                if deployment.state is not DeploymentState.ABORTED:
                    changed += self._advance(work, deployment)
            work.commit()
        self.announce(changed)

    def _advance(self, work: UnitOfWork, deployment: Deployment) -> list[DeviceId]:
        now = self.clock.now()
        changed: list[DeviceId] = []
        while True:
            members = self._time_out(work, deployment, now)
            decision = self._decide(deployment, members, now)
            match decision:
                case rollout.Dispatch(wave, devices):
                    changed += self._dispatch(work, members, devices, wave)
                case rollout.Abort(reason):
                    return changed + self._abort(work, deployment, reason)
                case rollout.Done() if deployment.state is DeploymentState.ROLLING:
                    deployment = replace(deployment, state=DeploymentState.DONE)
                    work.deployments.put(deployment)
                    log.info("deployment.done", deployment=deployment.id)
                case _:
                    return changed

    @staticmethod
    def _decide(
        deployment: Deployment, members: Sequence[Member], now: datetime
    ) -> rollout.Decision:
        """A finished rollout only takes in newcomers: they cannot abort what has succeeded."""
        if deployment.state is DeploymentState.DONE:
            waiting = [m.device_id for m in members if m.state is MemberState.WAITING]
            return (
                rollout.Dispatch(len(deployment.policy.waves), tuple(waiting))
                if waiting
                else rollout.Done()
            )
        return rollout.decide(deployment.policy, members, now)

    def _time_out(
        self, work: UnitOfWork, deployment: Deployment, now: datetime
    ) -> Sequence[Member]:
        members = work.deployments.members(deployment.id)
        for member in rollout.silent(deployment.policy, members, now):
            late = replace(
                member,
                state=MemberState.FAILED,
                since=now,
                code=Code.DEVICE_SILENT,
                message="the device said nothing after the dispatch",
            )
            work.deployments.put_member(late)
            log.warning("deployment.silent", deployment=deployment.id, device=member.device_id)
        return work.deployments.members(deployment.id)

    def _enlist(self, work: UnitOfWork, deployment: Deployment, devices: Iterable[Device]) -> None:
        condition = parse_condition(deployment.condition)
        there = {m.device_id for m in work.deployments.members(deployment.id)}
        for device in devices:
            wanted = device.state is DeviceState.ENROLLED and condition.matches(
                desired.facts(device)
            )
            if wanted and device.id not in there:
                now = self.clock.now()
                member = Member(deployment.id, device.id, MemberState.WAITING, now)
                work.deployments.put_member(member)
            elif not wanted and device.id in there:
                work.deployments.remove_member(deployment.id, device.id)

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
            member = replace(
                by_device[device_id], state=MemberState.DISPATCHED, wave=wave, since=now
            )
            work.deployments.put_member(member)
            state = self._render(work, device_id)
            if state:
                changed.append(device_id)
            current = state or work.deployments.desired(device_id)
            superseded = current is None or current.deployment_id != member.deployment_id
            # A device that follows a stronger deployment has nothing to prove for this one.
            done = MemberState.SUCCEEDED if superseded else MemberState.DISPATCHED
            version = current.version if current else 0
            work.deployments.put_member(replace(member, state=done, version=version))
        log.info("deployment.dispatched", deployment=members[0].deployment_id, devices=len(devices))
        return changed

    def _abort(self, work: UnitOfWork, deployment: Deployment, reason: str) -> list[DeviceId]:
        work.deployments.put(
            replace(deployment, state=DeploymentState.ABORTED, reason=reason[:1000])
        )
        log.warning("deployment.aborted", deployment=deployment.id, reason=reason)
        reached = [
            m.device_id for m in work.deployments.members(deployment.id) if m.wave is not None
        ]
        return [device for device in reached if self._render(work, device)]

    def _render(self, work: UnitOfWork, device_id: DeviceId) -> DesiredState | None:
        memberships = work.deployments.memberships(device_id)
        ids = {m.deployment_id for m in memberships}
        found = {i: d for i in ids if (d := work.deployments.get(i)) is not None}
        chosen = desired.winner(memberships, found)
        if chosen is None:
            return None
        rendering = desired.Rendering(device_id, EPOCH, self.clock.now(), self.director.seal)
        state = desired.render(chosen, work.deployments.desired(device_id), rendering)
        if state:
            work.deployments.put_desired(state)
        return state

    def status(self, deployment_id: str) -> dict[str, Any]:
        """Return how many members are in each state."""
        members = self.members(deployment_id)
        return {state.value: sum(m.state is state for m in members) for state in MemberState}


def _same(existing: Deployment, wanted: Deployment) -> Deployment:
    def content(deployment: Deployment) -> tuple[object, ...]:
        return (deployment.manifest, deployment.condition, deployment.priority, deployment.policy)

    if content(existing) != content(wanted):
        raise ConflictError(
            f"deployment {existing.id!r} exists with other content",
            code=Code.DEPLOYMENT_EXISTS,
            hint="the content of a deployment never changes: create one with another id",
        )
    return existing
