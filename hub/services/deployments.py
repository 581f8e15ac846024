"""Deployments: create, roll out wave by wave, take back; and what each device shall run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog

from hub.core import desired
from hub.core.deployment import (
    Deployment,
    DeploymentState,
    DesiredState,
    Member,
    MemberState,
    RolloutPolicy,
)
from hub.core.device import Device
from hub.core.ports import Clock, Director, Store
from hub.core.targeting import asks_reported, parse_condition
from hub.services.images import ImageService
from hub.services.rollouts import Rollouts
from protocol.errors import Code, ConflictError, NotFoundError
from protocol.ids import DeviceId, parse_deployment_id
from protocol.manifest import parse_manifest

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
            self._rollouts.enlist(work, deployment, work.devices.list())
            work.commit()
        log.info("deployment.created", deployment=deployment.id, condition=deployment.condition)
        self.advance([draft.id])
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
        """Return the newest desired state of a device, signed anew when it is old, or None."""
        with self.store.begin(write=False) as work:
            state = work.deployments.desired(device_id)
        if state is None or not desired.is_stale(state, self.clock.now()):
            return state
        with self.store.begin() as work:
            state = work.deployments.desired(device_id)
            deployment = work.deployments.get(state.deployment_id) if state else None
            if state and not state.deployment_id:
                deployment = desired.nothing(state.issued_at)
            if state is None or deployment is None:
                return state
            state = desired.reissue(deployment, state, self._rollouts.rendering(device_id))
            work.deployments.put_desired(state)
            work.commit()
        log.info("desired.reissued", device=device_id, version=state.version)
        return state

    def abort(self, deployment_id: str, reason: str) -> Deployment:
        """Take a deployment back: its devices return to what they followed before.

        A deployment that was aborted already stays as it is.
        """
        self.get(deployment_id)
        with self.store.begin() as work:
            found = work.deployments.get(deployment_id)
            goes_on = found is not None and found.state is not DeploymentState.ABORTED
            changed = self._rollouts.abort(work, found, reason) if found and goes_on else []
            work.commit()
        self.announce(changed)
        return self.get(deployment_id)

    def device_changed(self, device_id: DeviceId) -> None:
        """Enlist a device that is new, retired or labelled anew, and give it what it shall run."""
        with self.store.begin() as work:
            device = work.devices.get(device_id)
            if device is None:
                return
            moved = [
                deployment.id
                for deployment in work.deployments.list()
                if deployment.state is not DeploymentState.ABORTED
                and self._rollouts.enlist(work, deployment, [device])
            ]
            changed = [device.id] if self._rollouts.render(work, device.id) else []
            work.commit()
        self.announce(changed)
        if moved:
            self.advance(moved)

    def device_reported(self, device: Device) -> None:
        """Take note of how an update ended on a device, and go on with its rollout.

        May be called again with the same report: nothing happens then.
        """
        with self.store.begin(write=False) as work:
            is_news = self._rollouts.reached(work, device) is not None
            belongs = {m.deployment_id for m in work.deployments.memberships(device.id)}
            is_misplaced = any(
                asks_reported(d.condition)
                and d.state is not DeploymentState.ABORTED
                and parse_condition(d.condition).matches(desired.facts(device))
                is not (d.id in belongs)
                for d in work.deployments.list()
            )
        if is_news:
            self._take_note(device)
        if is_misplaced:
            self.device_changed(device.id)

    def _take_note(self, device: Device) -> None:
        with self.store.begin() as work:
            member = self._rollouts.reached(work, device)
            if member is None:
                return
            work.deployments.put_member(member)
            work.commit()
        log.info(
            "deployment.reached",
            deployment=member.deployment_id,
            device=device.id,
            state=member.state,
            code=member.code,
        )
        self.advance([member.deployment_id])

    def tick(self) -> None:
        """Do what has become due by the passing of time alone: silence, the end of a soak."""
        with self.store.begin(write=False) as work:
            due = [
                d.id
                for d in work.deployments.list()
                if d.state is DeploymentState.ROLLING and self._rollouts.is_due(work, d)
            ]
        if due:
            self.advance(due)

    def advance(self, only: Iterable[str] | None = None) -> None:
        """Do everything that is due now in every rollout, or in those of these deployments."""
        changed: list[DeviceId] = []
        with self.store.begin() as work:
            ids = [d.id for d in work.deployments.list()] if only is None else only
            for deployment_id in ids:
                deployment = work.deployments.get(deployment_id)
                if deployment and deployment.state is not DeploymentState.ABORTED:
                    changed += self._rollouts.advance(work, deployment)
            work.commit()
        self.announce(list(dict.fromkeys(changed)))

    @property
    def _rollouts(self) -> Rollouts:
        return Rollouts(self.clock, self.director)

    def status(self, deployment_id: str) -> dict[str, Any]:
        """Return how many members are in each state."""
        members = self.members(deployment_id)
        return {state.value: sum(m.state is state for m in members) for state in MemberState}


def _same(existing: Deployment, wanted: Deployment) -> Deployment:
    def content(deployment: Deployment) -> tuple[object, ...]:
        return (
            deployment.manifest,
            deployment.condition,
            deployment.priority,
            deployment.policy,
            deployment.labels,
        )

    if content(existing) != content(wanted):
        raise ConflictError(
            f"deployment {existing.id!r} exists with other content",
            code=Code.DEPLOYMENT_EXISTS,
            hint="the content of a deployment never changes: create one with another id",
        )
    return existing
