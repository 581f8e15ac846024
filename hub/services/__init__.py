"""Use cases of the hub; one public method is one transaction and one log event."""

from __future__ import annotations

from dataclasses import dataclass

from hub.core.ports import Authority, Profiles
from hub.services.credentials import CredentialService
from hub.services.deployments import DeploymentService
from hub.services.devices import DeviceService
from hub.services.images import ImageService
from hub.services.models import ModelService
from hub.services.operators import OperatorService
from hub.services.telemetry import TelemetryService
from hub.services.uploads import UploadService


@dataclass(frozen=True, slots=True)
class Services:
    """The bundle handed to every rim."""

    authority: Authority
    profiles: Profiles
    operators: OperatorService
    uploads: UploadService
    models: ModelService
    images: ImageService
    devices: DeviceService
    credentials: CredentialService
    deployments: DeploymentService
    telemetry: TelemetryService
