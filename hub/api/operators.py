"""Routes for people and their tools: `/api/v1`. Each parses, calls one service method, shapes."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Body, Depends, Header, Query, Request
from fastapi.responses import StreamingResponse

from hub.api import schemas
from hub.api.answers import FileStream
from hub.api.deps import OperatorDep, ServicesDep, operator
from hub.core.deployment import RolloutPolicy
from hub.core.rollout import parse_waves
from hub.core.telemetry import TelemetryFilter
from hub.services.deployments import Draft
from hub.services.images import ImageDraft
from hub.services.models import Registration
from protocol.errors import Code, InvalidError
from protocol.ids import parse_device_id
from protocol.profile import Profile

_PROBLEMS: dict[int | str, dict[str, Any]] = {"default": {"model": schemas.ProblemOut}}

router = APIRouter(prefix="/api/v1", dependencies=[Depends(operator)], responses=_PROBLEMS)


@router.post("/blobs", status_code=201, tags=["blobs"])
async def upload_blob(
    request: Request,
    actor: OperatorDep,
    hub: ServicesDep,
    digest: Annotated[str, Header(alias="x-digest", description="sha256:... of the body")],
) -> schemas.BlobOut:
    """Store the request's body under its digest."""
    stored, size = await hub.uploads.receive(f"operator {actor.name}", request.stream(), digest)
    return schemas.BlobOut(digest=stored, size=size)


@router.post("/models", status_code=201, tags=["models"])
def register_model(body: schemas.ModelIn, hub: ServicesDep) -> schemas.ModelOut:
    """Make the next version of a model."""
    return schemas.ModelOut.of(hub.models.register(Registration(**body.model_dump())))


@router.get("/models", tags=["models"])
def list_models(hub: ServicesDep, name: str | None = None) -> list[schemas.ModelOut]:
    """List versions of models."""
    return [schemas.ModelOut.of(model) for model in hub.models.list(name)]


@router.get("/models/{ref}", tags=["models"])
def show_model(ref: str, hub: ServicesDep) -> schemas.ModelOut:
    """Show `name:version`, or the newest of `name`."""
    return schemas.ModelOut.of(hub.models.get(ref))


@router.get("/models/{ref}/content", tags=["models"], response_class=StreamingResponse)
def download_model(ref: str, hub: ServicesDep) -> StreamingResponse:
    """Download the file of a model."""
    model, file = hub.models.open(ref)
    headers = {"Content-Length": str(model.size), "X-Digest": model.digest}
    return FileStream(file, headers)


@router.post("/images", status_code=202, tags=["images"])
def create_image(body: schemas.ImageIn, hub: ServicesDep) -> schemas.ImageOut:
    """Begin to package an image; ask for it until its state is `ready` or `failed`."""
    return schemas.ImageOut.of(hub.images.create(ImageDraft(**body.model_dump())))


@router.get("/images", tags=["images"])
def list_images(hub: ServicesDep, name: str | None = None) -> list[schemas.ImageOut]:
    """List versions of images."""
    return [schemas.ImageOut.of(image) for image in hub.images.all(name)]


@router.get("/images/{ref:path}", tags=["images"])
def show_image(ref: str, hub: ServicesDep) -> schemas.ImageOut:
    """Show `name:version`, or the newest of `name`."""
    return schemas.ImageOut.of(hub.images.get(ref))


@router.get("/profiles", tags=["devices"])
def list_profiles(hub: ServicesDep) -> list[dict[str, Any]]:
    """List the device profiles."""
    return [_plain(profile) for profile in hub.profiles.list()]


def _plain(profile: Profile) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(profile)
    return plain


@router.post("/invitations", status_code=201, tags=["devices"])
def invite_device(body: schemas.InvitationIn, hub: ServicesDep) -> schemas.InvitationOut:
    """Make a single-use claim token for a device."""
    life = timedelta(hours=body.hours)
    claim = hub.devices.invite(body.device_id, tags=body.tags, life=life)
    return schemas.InvitationOut(device_id=body.device_id, claim=claim)


@router.get("/devices", tags=["devices"])
def list_devices(
    hub: ServicesDep, after: str = "", limit: Annotated[int, Query(ge=1, le=1000)] = 1000
) -> list[schemas.DeviceOut]:
    """List devices in order of id, beyond `after`."""
    return [schemas.DeviceOut.of(device) for device in hub.devices.list(after=after, limit=limit)]


@router.get("/devices/{device_id}", tags=["devices"])
def show_device(device_id: str, hub: ServicesDep) -> schemas.DeviceOut:
    """Show a device with its twin."""
    return schemas.DeviceOut.of(hub.devices.get(device_id))


@router.patch("/devices/{device_id}/tags", tags=["devices"])
def tag_device(
    device_id: str, patch: Annotated[dict[str, Any], Body()], hub: ServicesDep
) -> schemas.DeviceOut:
    """Merge a patch into a device's tags; null removes."""
    return schemas.DeviceOut.of(hub.devices.set_tags(device_id, patch))


@router.post("/devices/{device_id}/retire", tags=["devices"])
def retire_device(device_id: str, hub: ServicesDep) -> schemas.DeviceOut:
    """Stop trusting a device, at once."""
    return schemas.DeviceOut.of(hub.devices.retire(device_id))


@router.post("/deployments", status_code=201, tags=["deployments"])
def create_deployment(body: schemas.DeploymentIn, hub: ServicesDep) -> schemas.DeploymentOut:
    """Create a deployment and start its rollout."""
    draft = Draft(
        id=body.id,
        manifest=_json(body.manifest),
        condition=body.target_condition,
        priority=body.priority,
        labels=body.labels,
        policy=RolloutPolicy(
            waves=parse_waves(body.waves),
            soak_seconds=body.soak_seconds,
            min_success=body.min_success,
            silent_seconds=body.silent_seconds,
        ),
    )
    deployment = hub.deployments.create(draft)
    return schemas.DeploymentOut.of(deployment, hub.deployments.status(deployment.id))


def _json(manifest: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(manifest)
    except (UnicodeEncodeError, RecursionError) as error:
        raise InvalidError(
            f"the manifest cannot be written as JSON: {error}",
            code=Code.MANIFEST_INVALID,
            hint="its form is in docs/manifest.md",
        ) from error


@router.get("/deployments", tags=["deployments"])
def list_deployments(hub: ServicesDep) -> list[schemas.DeploymentOut]:
    """List deployments, oldest first."""
    return [
        schemas.DeploymentOut.of(deployment, hub.deployments.status(deployment.id))
        for deployment in hub.deployments.all()
    ]


@router.get("/deployments/{deployment_id}", tags=["deployments"])
def show_deployment(deployment_id: str, hub: ServicesDep) -> schemas.DeploymentOut:
    """Show a deployment."""
    deployment = hub.deployments.get(deployment_id)
    return schemas.DeploymentOut.of(deployment, hub.deployments.status(deployment_id))


@router.get("/deployments/{deployment_id}/devices", tags=["deployments"])
def list_members(deployment_id: str, hub: ServicesDep) -> list[schemas.MemberOut]:
    """List the devices of a deployment and how far it got on each."""
    return [schemas.MemberOut.of(m) for m in hub.deployments.members(deployment_id)]


@router.post("/deployments/{deployment_id}/abort", tags=["deployments"])
def abort_deployment(deployment_id: str, hub: ServicesDep) -> schemas.DeploymentOut:
    """Take a deployment back from every device."""
    deployment = hub.deployments.abort(deployment_id, "an operator took it back")
    return schemas.DeploymentOut.of(deployment, hub.deployments.status(deployment_id))


@router.get("/telemetry", tags=["telemetry"])
def tail_telemetry(
    hub: ServicesDep,
    device: str | None = None,
    module: str | None = None,
    after: Annotated[int, Query(ge=0, description="records with a greater id")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    *,
    newest: Annotated[bool, Query(description="the last instead of the first")] = False,
) -> list[schemas.MeasurementOut]:
    """Read telemetry in order of arrival."""
    wanted = TelemetryFilter(
        parse_device_id(device) if device else None, module, after, limit, newest
    )
    return [schemas.MeasurementOut.of(row) for row in hub.telemetry.tail(wanted)]


@router.get("/telemetry/stats", tags=["telemetry"])
def telemetry_stats(hub: ServicesDep) -> schemas.StatsOut:
    """Count what is stored."""
    stored, by_device = hub.telemetry.counts()
    return schemas.StatsOut(stored=stored, by_device={str(k): v for k, v in by_device.items()})


@router.post("/telemetry/score", tags=["telemetry"])
def score_telemetry(body: schemas.ScoreIn, hub: ServicesDep) -> dict[str, schemas.ScoreOut]:
    """Judge what arrived against true labels."""
    scores = hub.telemetry.score(body.truth, by=body.by, module=body.module, key=body.key)
    return {group: schemas.ScoreOut.of(score) for group, score in scores.items()}
