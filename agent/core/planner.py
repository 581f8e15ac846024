"""desired + observed -> the actions that bring them together. Pure: same inputs, same plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from agent.core.plan import (
    Action,
    InstanceState,
    ModuleSpec,
    Observed,
    Plan,
    Pull,
    Start,
    Stop,
)
from agent.core.restart import Restarts
from protocol.ids import ModuleName


def plan(
    wanted: Iterable[ModuleSpec], observed: Observed, restarts: Restarts, now: datetime
) -> Plan:
    """Return the actions that move `observed` towards `wanted`, in order.

    Every image is pulled before anything is started, and everything new is started before anything
    old is stopped, so a failed download or start never costs an outage. Two specs of one module may
    be wanted at once: an update proves the new one beside the old one.
    """
    running = [spec for spec in wanted if spec.running]
    keep = {spec.instance_id for spec in running}
    alive = {i.id for i in observed.instances if i.state is InstanceState.RUNNING}
    ended = {i.id: i for i in observed.instances if i.state is InstanceState.EXITED}
    missing = [
        spec
        for spec in sorted(running, key=lambda s: (s.startup_order, s.instance_id))
        if spec.instance_id not in alive
        and restarts.may_start(spec, ended.get(spec.instance_id), now)
    ]
    absent = {str(s.image): s.image for s in missing if s.image.digest not in observed.images}
    actions: list[Action] = [Pull(absent[key]) for key in sorted(absent)]
    actions += [Start(spec) for spec in missing]
    actions += [Stop(i.id) for i in observed.instances if i.id not in keep]
    return tuple(actions)


def beside(
    good: Mapping[ModuleName, ModuleSpec], new: Mapping[ModuleName, ModuleSpec]
) -> list[ModuleSpec]:
    """Return what runs while `new` is being proved: both sets, less what cannot run twice.

    An old instance that holds a fixed host port, device or network that any new one needs goes
    first. One that shall merely stop goes on until the update is committed.
    """
    out = {spec.instance_id: spec for spec in new.values()}
    arriving = [spec for spec in new.values() if spec.running]
    for spec in good.values():
        successor = out.get(spec.instance_id)
        if successor is not None:
            out[spec.instance_id] = successor if successor.running else spec
        elif not any(_exclusive(spec, other) for other in arriving):
            out[spec.instance_id] = spec
    return list(out.values())


def _exclusive(old: ModuleSpec, new: ModuleSpec) -> bool:
    return bool(_host_resources(old.create_options) & _host_resources(new.create_options))


def _host_resources(options: Mapping[str, Any]) -> set[str]:
    host = options.get("HostConfig") or {}
    ports = {
        f"port {binding.get('HostPort')}"
        for bindings in (host.get("PortBindings") or {}).values()
        for binding in bindings or []
        if binding.get("HostPort")
    }
    network = {"host network"} if host.get("NetworkMode") == "host" else set()
    devices = {f"device {d.get('PathOnHost')}" for d in host.get("Devices") or []}
    return ports | network | devices
