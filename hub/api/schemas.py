"""Shapes of requests and answers of the operators' API."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from hub.core.deployment import Deployment, Member
from hub.core.device import Device
from hub.core.image import Image
from hub.core.model import Model
from hub.core.packaging import Architecture, Base
from hub.core.telemetry import Measurement, Score


class _Shape(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        from_attributes=True,
        protected_namespaces=(),
    )


class ProblemOut(_Shape):
    """How every failed call answers."""

    code: str
    message: str
    hint: str


class BlobOut(_Shape):
    """Stored bytes."""

    digest: str
    size: int


class ModelIn(_Shape):
    """A model to register; its bytes are uploaded already."""

    name: str = Field(examples=["digits"])
    digest: str
    filename: str = Field(examples=["model.onnx"])
    framework: str = ""
    description: str = ""
    tags: dict[str, str] = {}
    golden: dict[str, Any] | None = None


class ModelOut(_Shape):
    """A version of a model."""

    name: str
    version: int
    digest: str
    size: int
    filename: str
    created_at: datetime
    framework: str
    description: str
    tags: dict[str, str]
    golden_samples: int

    @classmethod
    def of(cls, model: Model) -> ModelOut:
        """Return the shape of a model."""
        samples = len((model.golden or {}).get("samples", ()))
        return cls(
            name=model.name,
            version=model.version,
            digest=model.digest,
            size=model.size,
            filename=model.filename,
            created_at=model.created_at,
            framework=model.framework,
            description=model.description,
            tags=model.tags,
            golden_samples=samples,
        )


class ImageIn(_Shape):
    """An image to package."""

    name: str = Field(examples=["digits-image"])
    models: list[str] = Field(min_length=1, examples=[["digits:1"]])
    source: str | None = None
    entry_script: str | None = None
    requirements: list[str] | None = None
    python_version: str = "3.11"
    architecture: Architecture = Architecture.AMD64
    base: Base = Base.DEBIAN
    env: dict[str, str] = {}


class LayerOut(_Shape):
    """A layer of an image."""

    kind: str
    digest: str
    size: int


class ImageOut(_Shape):
    """A version of an image."""

    name: str
    version: int
    state: str
    models: list[str]
    created_at: datetime
    architecture: str
    digest: str | None
    reference: str
    layers: list[LayerOut]
    progress: str
    error_code: str
    error: str
    error_hint: str

    @classmethod
    def of(cls, image: Image) -> ImageOut:
        """Return the shape of an image."""
        return cls.model_validate(image)


class InvitationIn(_Shape):
    """A device that shall enrol."""

    device_id: str = Field(examples=["press-7"])
    tags: dict[str, Any] = {}
    hours: float = Field(default=24, gt=0, le=720)


class InvitationOut(_Shape):
    """The claim token; shown only here."""

    device_id: str
    claim: str


class DeviceOut(_Shape):
    """A device."""

    id: str
    profile: str
    state: str
    enrolled_at: datetime
    agent_version: str
    tags: dict[str, Any]
    reported: dict[str, Any]
    connected: bool
    last_seen: datetime | None

    @classmethod
    def of(cls, device: Device) -> DeviceOut:
        """Return the shape of a device."""
        return cls.model_validate(device)


class DeploymentIn(_Shape):
    """What should run, for whom, and how it gets there."""

    id: str = Field(examples=["digits-1"])
    manifest: dict[str, Any]
    target_condition: str = Field(examples=["tags.site = 'plant-7'"])
    priority: int = Field(default=0, ge=-(2**31), lt=2**31)
    labels: dict[str, str] = {}
    waves: str = Field(default="", examples=["1,10%"])
    soak_seconds: float = Field(default=0, ge=0, le=30 * 86400)
    min_success: float = Field(default=1.0, ge=0, le=1)
    silent_seconds: float = Field(default=1800, gt=0, le=30 * 86400)


class DeploymentOut(_Shape):
    """A deployment and how far it got."""

    id: str
    target_condition: str
    priority: int
    created_at: datetime
    labels: dict[str, str]
    models: list[str]
    state: str
    reason: str
    devices: dict[str, int]

    @classmethod
    def of(cls, deployment: Deployment, devices: dict[str, int]) -> DeploymentOut:
        """Return the shape of a deployment."""
        return cls(
            id=deployment.id,
            target_condition=deployment.condition,
            priority=deployment.priority,
            created_at=deployment.created_at,
            labels=deployment.labels,
            models=list(deployment.models),
            state=deployment.state.value,
            reason=deployment.reason,
            devices=devices,
        )


class MemberOut(_Shape):
    """A device of a deployment."""

    device_id: str
    state: str
    wave: int | None
    version: int
    since: datetime
    code: str
    message: str

    @classmethod
    def of(cls, member: Member) -> MemberOut:
        """Return the shape of a member."""
        return cls(
            device_id=member.device_id,
            state=member.state.value,
            wave=member.wave,
            version=member.version,
            since=member.since,
            code=member.code,
            message=member.message,
        )


class MeasurementOut(_Shape):
    """A stored record of telemetry; exactly one of `body` (UTF-8) and `data` (base64) is set."""

    id: int
    device: str
    epoch: str
    seq: int
    module: str
    output: str
    at: datetime
    received_at: datetime
    properties: dict[str, str]
    body: str | None
    data: str | None

    @classmethod
    def of(cls, row: Measurement) -> MeasurementOut:
        """Return the shape of a record."""
        try:
            body, data = row.body.decode(), None
        except UnicodeDecodeError:
            body, data = None, base64.b64encode(row.body).decode()
        return cls(
            id=row.id,
            device=row.device,
            epoch=row.epoch,
            seq=row.seq,
            module=row.module,
            output=row.output,
            at=row.at,
            received_at=row.received_at,
            properties=row.properties,
            body=body,
            data=data,
        )


class StatsOut(_Shape):
    """How much telemetry is stored."""

    stored: int
    by_device: dict[str, int]


class ScoreIn(_Shape):
    """True labels by the name of the input."""

    truth: dict[str, Any]
    by: Literal["device", "profile"] = "device"
    module: str | None = None
    key: str = "label"


class ScoreOut(_Shape):
    """How right and how fast one group of devices answered; latencies in milliseconds."""

    answered: int
    known: int
    labelled: int
    right: int
    accuracy: float | None
    latency_p50_ms: float | None
    latency_p99_ms: float | None

    @classmethod
    def of(cls, score: Score) -> ScoreOut:
        """Return the shape of a score."""
        return cls.model_validate(score)
