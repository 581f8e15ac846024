"""What the agent reports: `$edgeAgent`'s reported properties and our `x-` keys. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agent.core.desired import Accepted
from agent.core.plan import Instance, InstanceState, ModuleSpec, Observed
from agent.core.restart import restarts_after
from agent.core.update import MAX_MESSAGE, TERMINAL, Progress, State
from protocol.errors import FleetError

_SUCCESS, _FAILED, _FORMAT_ERROR, _UNKNOWN = 200, 500, 400, 406


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a desired state was not accepted."""

    code: str
    message: str

    @classmethod
    def of(cls, error: FleetError) -> Refusal:
        """Return what a report says of an error."""
        return cls(error.code, str(error)[:MAX_MESSAGE])


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything a report is made of.

    Attributes:
        good: What the device runs by the last update that succeeded.
        accepted: The newest desired state accepted.
        progress: Where the newest update stands.
        hindrance: Why the update cannot go on right now.
        refusal: Why the newest document from the hub was refused.
        observed: What the runtime sees.
        restarts: Restart count by instance id.
    """

    agent_version: str
    runtime: str
    bytes_pulled: int
    good: Accepted | None
    accepted: Accepted | None
    progress: Progress | None
    hindrance: Refusal | None
    refusal: Refusal | None
    observed: Observed
    restarts: Callable[[str], int]


def build(facts: Facts) -> dict[str, Any]:
    """Return the reported state."""
    report: dict[str, Any] = {
        "schemaVersion": "1.1",
        "version": {"version": facts.agent_version},
        "lastDesiredVersion": _settled_version(facts),
        "lastDesiredStatus": _status(facts),
        "runtime": {"type": "docker", "x-kind": facts.runtime},
        "modules": _modules(facts),
        "x-bytesPulled": facts.bytes_pulled,
    }
    if facts.progress and facts.accepted:
        report["x-update"] = _update(facts, facts.progress, facts.accepted)
    if facts.refusal:
        report["x-refused"] = {"code": facts.refusal.code, "message": facts.refusal.message}
    return report


def _settled_version(facts: Facts) -> int:
    if facts.progress and facts.progress.state in TERMINAL:
        return facts.progress.version
    return facts.good.version.version if facts.good else 0


def _status(facts: Facts) -> dict[str, Any]:
    progress = facts.progress
    if facts.refusal:
        return {"code": _FORMAT_ERROR, "description": facts.refusal.message}
    if progress and progress.state is State.FAILED:
        return {"code": _FAILED, "description": progress.message}
    if facts.good is None:
        return {"code": _UNKNOWN, "description": ""}
    return {"code": _SUCCESS, "description": ""}


def _update(facts: Facts, progress: Progress, accepted: Accepted) -> dict[str, Any]:
    update: dict[str, Any] = {
        "version": progress.version,
        "deployment": accepted.deployment,
        "state": _update_state(progress, facts.good),
        "step": progress.state.value,
    }
    if progress.code:
        update |= {"code": progress.code, "message": progress.message}
    elif facts.hindrance:
        update |= {"code": facts.hindrance.code, "message": facts.hindrance.message}
    return update


def _update_state(progress: Progress, good: Accepted | None) -> str:
    if progress.state is State.DONE:
        return "succeeded"
    if progress.state is State.FAILED:
        return "rolled-back" if good else "failed"
    return "in-progress"


def _modules(facts: Facts) -> dict[str, Any]:
    if facts.good is None:
        return {}
    by_id = {i.id: i for i in facts.observed.instances}
    return {
        name: _module(spec, by_id.get(spec.instance_id), facts)
        for name, spec in sorted(facts.good.specs.items())
    }


def _module(spec: ModuleSpec, instance: Instance | None, facts: Facts) -> dict[str, Any]:
    return {
        "status": "running" if spec.running else "stopped",
        "runtimeStatus": _runtime_status(spec, instance),
        "restartPolicy": spec.restart_policy,
        "restartCount": facts.restarts(spec.instance_id),
        "exitCode": (instance.exit_code if instance else None) or 0,
        "settings": {"image": str(spec.image), "imageHash": spec.image.digest or ""},
    }


def _runtime_status(spec: ModuleSpec, instance: Instance | None) -> str:
    if instance and instance.state is InstanceState.RUNNING:
        return "running"
    if not spec.running:
        return "stopped"
    if instance is None:
        return "unknown"
    if restarts_after(spec, instance):
        return "backoff"
    return "stopped" if instance.exit_code == 0 else "failed"
