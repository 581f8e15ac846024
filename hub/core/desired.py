"""What one device shall run: which deployment wins, and the document that says so. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from hub.core.deployment import Deployment, DeploymentState, DesiredState, Member, MemberState
from hub.core.device import Device
from protocol import codec
from protocol.ids import DeviceId, ImageRef, digest_of, parse_image_ref
from protocol.messages import DESIRED_TYPE, Desired

LIFE = timedelta(days=30)
_REACHED = frozenset({MemberState.DISPATCHED, MemberState.SUCCEEDED, MemberState.FAILED})


def facts(device: Device) -> dict[str, Any]:
    """Return what target conditions may ask about a device."""
    return {
        "deviceId": device.id,
        "profile": device.profile,
        "tags": device.tags,
        "properties": {"reported": device.reported},
    }


def winner(
    memberships: Iterable[Member], deployments: Mapping[str, Deployment]
) -> Deployment | None:
    """Return the deployment a device follows: highest priority, newest among equals.

    Only deployments that have reached the device and were not aborted count. None leaves the
    device with what it has.
    """
    candidates = [
        deployments[m.deployment_id]
        for m in memberships
        if m.state in _REACHED
        and m.deployment_id in deployments
        and deployments[m.deployment_id].state is not DeploymentState.ABORTED
    ]
    return max(candidates, key=lambda d: (d.priority, d.created_at, d.id), default=None)


@dataclass(frozen=True, slots=True)
class Rendering:
    """What goes into a desired state besides the manifest."""

    device: DeviceId
    epoch: int
    now: datetime
    seal: Callable[[str, bytes], bytes]


def render(
    deployment: Deployment, previous: DesiredState | None, rendering: Rendering
) -> DesiredState | None:
    """Return the next desired state of a device, or None when nothing changes for it."""
    content = digest_of(f"{deployment.id}\0{deployment.manifest}".encode())
    if previous and previous.content_digest == content and previous.epoch == rendering.epoch:
        return None
    same_epoch = previous is not None and previous.epoch == rendering.epoch
    version = previous.version + 1 if previous and same_epoch else 1
    return _seal(deployment, version, content, rendering)


def is_stale(state: DesiredState, now: datetime) -> bool:
    """Tell whether half of a document's life is over: who asks for it now gets a fresh one."""
    return now >= state.issued_at + LIFE / 2


def reissue(deployment: Deployment, state: DesiredState, rendering: Rendering) -> DesiredState:
    """Return the same version of a desired state with a new life."""
    return _seal(deployment, state.version, state.content_digest, rendering)


def _seal(deployment: Deployment, version: int, content: str, rendering: Rendering) -> DesiredState:
    document = Desired(
        device=rendering.device,
        epoch=rendering.epoch,
        version=version,
        issued=int(rendering.now.timestamp()),
        expires=int((rendering.now + LIFE).timestamp()),
        deployment=deployment.id,
        manifest=deployment.manifest,
    )
    envelope = rendering.seal(DESIRED_TYPE, codec.encode(document))
    return DesiredState(
        device_id=rendering.device,
        epoch=rendering.epoch,
        version=version,
        deployment_id=deployment.id,
        content_digest=content,
        envelope=envelope,
        issued_at=rendering.now,
    )


def nothing(now: datetime) -> Deployment:
    """Return what a device follows when the only deployment it ever had was taken back."""
    sections = {
        "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": {}}},
        "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {}}},
    }
    manifest = msgspec.json.encode({"modulesContent": sections}).decode()
    return Deployment(id="", manifest=manifest, condition="", priority=0, created_at=now)


def images_of(manifest: Mapping[str, Any]) -> list[ImageRef]:
    """Return the images of a checked manifest's modules, in order of module name."""
    modules = manifest["modulesContent"]["$edgeAgent"]["properties.desired"].get("modules", {})
    return [parse_image_ref(modules[name]["settings"]["image"]) for name in sorted(modules)]


def with_images(
    manifest: Mapping[str, Any], resolve: Callable[[str], str], golden: Callable[[str], Any]
) -> dict[str, Any]:
    """Return the manifest with every module's image resolved, and golden samples filled in.

    Args:
        manifest: A checked manifest.
        resolve: Image as written -> image pinned by digest.
        golden: Image as written -> golden samples of the model inside, or None. A manifest that
            brings its own samples keeps them.
    """
    copy: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(manifest))
    modules = copy["modulesContent"]["$edgeAgent"]["properties.desired"].get("modules", {})
    for module in modules.values():
        written = module["settings"]["image"]
        module["settings"]["image"] = resolve(written)
        if "x-goldenSamples" not in module and (samples := golden(written)) is not None:
            module["x-goldenSamples"] = samples
    return copy
