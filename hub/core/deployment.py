"""What should run and for whom: a deployment, its rollout policy, and a device's place in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from protocol.ids import DeviceId


class DeploymentState(StrEnum):
    """The life of a deployment."""

    ROLLING = "rolling"
    DONE = "done"
    ABORTED = "aborted"


class MemberState(StrEnum):
    """How far a deployment got on one device."""

    WAITING = "waiting"
    DISPATCHED = "dispatched"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Wave:
    """How many devices a wave adds: a count, or a share (0..1] of all members."""

    count: int | None = None
    share: float | None = None


@dataclass(frozen=True, slots=True)
class RolloutPolicy:
    """How a deployment reaches its devices.

    Attributes:
        waves: In order; a last wave with everyone is implied.
        soak_seconds: How long a wave must have been all well before the next begins.
        min_success: Share of a wave's devices that must succeed.
        silent_seconds: A device that says nothing for so long after dispatch has failed.
    """

    waves: tuple[Wave, ...] = ()
    soak_seconds: float = 0.0
    min_success: float = 1.0
    silent_seconds: float = 1800.0


@dataclass(frozen=True, slots=True)
class Deployment:
    """A manifest, a target condition, a priority, and how it rolls out.

    Attributes:
        id: Chosen by the operator; content never changes under it.
        manifest: The manifest as JSON text, images pinned by digest.
        condition: Target condition as written.
        priority: The highest wins on a device; among equals the newest.
        models: Models its images carry, as `name:version`.
        reason: Why it was aborted.
    """

    id: str
    manifest: str
    condition: str
    priority: int
    created_at: datetime
    policy: RolloutPolicy = field(default_factory=RolloutPolicy)
    labels: dict[str, str] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    state: DeploymentState = DeploymentState.ROLLING
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Member:
    """One device of a deployment.

    Attributes:
        wave: Index of the wave that took it, None while it waits.
        version: Desired version it was sent with.
        since: When it entered its state.
        code: Why it failed.
        message: The sentence that goes with it.
    """

    deployment_id: str
    device_id: DeviceId
    state: MemberState
    since: datetime
    wave: int | None = None
    version: int = 0
    code: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class DesiredState:
    """The newest desired state of a device, signed.

    Attributes:
        deployment_id: Where it came from; empty when no deployment reaches the device.
        content_digest: Digest of the manifest it carries, to see whether anything changed.
        envelope: The signed bytes the device gets.
    """

    device_id: DeviceId
    epoch: int
    version: int
    deployment_id: str
    content_digest: str
    envelope: bytes
    issued_at: datetime
