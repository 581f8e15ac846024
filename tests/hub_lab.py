"""A whole hub in memory for tests: real services, keys and blobs on disk, no listener."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import device_profiles
from hub.adapters.blobs import DiskBlobs
from hub.adapters.memory import MemoryStore
from hub.adapters.pki import DiskAuthority, DiskDirector
from hub.adapters.profiles import YamlProfiles
from hub.adapters.registry.embedded import EmbeddedRegistry
from hub.core.image import LayerInfo
from hub.core.packaging import BuiltImage, ImageRegistry, Progress, Recipe
from hub.core.ports import Clock, Store
from hub.services import Services
from hub.services.credentials import CredentialService
from hub.services.deployments import DeploymentService, Draft
from hub.services.devices import Addresses, DeviceService
from hub.services.images import ImageDraft, ImageService
from hub.services.models import ModelService, Registration
from hub.services.operators import OperatorService
from hub.services.sessions import Conversation, Sessions
from hub.services.telemetry import TelemetryIngest, TelemetryService
from hub.services.uploads import UploadService
from protocol import dsse
from protocol.errors import FleetError
from protocol.ids import DeviceId, Digest, digest_of
from protocol.messages import (
    DESIRED_TYPE,
    Credential,
    Desired,
    Enrolled,
    EnrollRequest,
    MqttEndpoint,
)
from simulator.fake_bus import FakeBus
from simulator.fakes import ManualClock

AUTHORITY = "hub.test:8443"
OCI = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
DEVICE_KEY = ec.generate_private_key(ec.SECP256R1())


def csr(
    key: Any = DEVICE_KEY, name: str = "whoever", extensions: Iterable[x509.ExtensionType] = ()
) -> str:
    """Return a certificate request in PEM."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    algorithm = hashes.SHA256() if hasattr(key, "key_size") else None
    request = builder.sign(key, algorithm)
    return request.public_bytes(serialization.Encoding.PEM).decode()


def der(chain_pem: str) -> bytes:
    """Return the first certificate of a chain as DER."""
    certificate = x509.load_pem_x509_certificates(chain_pem.encode())[0]
    return certificate.public_bytes(serialization.Encoding.DER)


@dataclass
class LittleBuilder:
    """Packs a recipe's models into one layer: an image as small as the registry takes one.

    Attributes:
        refusals: Errors the next checks and builds end with, by step.
    """

    blobs: DiskBlobs
    refusals: dict[str, Exception] = field(default_factory=dict)

    def check(self, recipe: Recipe) -> None:
        """Refuse what was asked for."""
        self._refuse("check", recipe)

    def build(self, recipe: Recipe, registry: ImageRegistry, progress: Progress) -> BuiltImage:
        """Build and push."""
        progress("packing")
        self._refuse("build", recipe)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for model in recipe.models:
                with self.blobs.open(model.digest) as file:
                    info = tarfile.TarInfo(f"models/{model.folder}/{model.filename}")
                    info.size = self.blobs.size(model.digest)
                    tar.addfile(info, file)
        layer, config = buffer.getvalue(), json.dumps({"tag": recipe.tag}).encode()
        parts = [(layer, LAYER), (config, CONFIG)]
        for data, _ in parts:
            registry.put_blob(recipe.name, io.BytesIO(data), digest_of(data), len(data))
        described = [
            {"mediaType": kind, "digest": digest_of(data), "size": len(data)}
            for data, kind in parts
        ]
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI,
            "config": described[1],
            "layers": described[:1],
        }
        raw = json.dumps(manifest).encode()
        digest = registry.put_manifest(recipe.name, raw, OCI, recipe.tag)
        layers = (LayerInfo("model", digest_of(layer), len(layer)),)
        return BuiltImage(
            name=recipe.name,
            tag=recipe.tag,
            digest=digest,
            config_digest=digest_of(config),
            layers=layers,
            sent_bytes=len(layer),
        )

    def _refuse(self, step: str, _recipe: Recipe) -> None:
        if step in self.refusals:
            raise self.refusals[step]


def module_manifest(image: str, **extra: Any) -> dict[str, Any]:
    """Return the manifest of one module."""
    module = {
        "type": "docker",
        "status": "running",
        "restartPolicy": "always",
        "settings": {"image": image, "createOptions": "{}"},
        **extra,
    }
    desired = {"schemaVersion": "1.1", "modules": {"model": module}}
    hub = {"schemaVersion": "1.1", "routes": {"up": "FROM /messages/* INTO $upstream"}}
    return {
        "modulesContent": {
            "$edgeAgent": {"properties.desired": desired},
            "$edgeHub": {"properties.desired": hub},
        }
    }


@dataclass
class Lab:
    """The hub, and what it said to the outside."""

    folder: Path
    clock: Clock
    store: Store
    announced: list[DeviceId] = field(default_factory=list)
    revoked: list[DeviceId] = field(default_factory=list)
    jobs: list[Callable[[], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.blobs = DiskBlobs(self.folder / "blobs")
        self.authority = DiskAuthority(self.folder / "keys", self.clock)
        self.director = DiskDirector(self.folder / "keys")
        self.builder = LittleBuilder(self.blobs)
        self.bus = FakeBus()
        registry = EmbeddedRegistry(AUTHORITY, self.store, self.blobs)
        profiles = YamlProfiles(Path(str(device_profiles.__file__)).parent)
        models = ModelService(self.store, self.blobs, self.clock)
        images = ImageService(
            self.store, self.clock, models, self.builder, registry, self.jobs.append
        )
        deployments = DeploymentService(
            self.store, self.clock, self.director, images, self.announced.extend
        )
        telemetry = TelemetryService(self.store, self.clock)
        devices = DeviceService(
            self.store,
            self.clock,
            self.authority,
            self.director,
            profiles,
            self.addresses,
            deployments.device_changed,
            self.revoked.append,
        )
        self.services = Services(
            authority=self.authority,
            profiles=profiles,
            operators=OperatorService(self.store, self.clock),
            uploads=UploadService(self.blobs),
            models=models,
            images=images,
            devices=devices,
            credentials=CredentialService(
                self.store, AUTHORITY, lambda device, name: Credential("bearer", f"{device} {name}")
            ),
            deployments=deployments,
            telemetry=telemetry,
        )
        self.ingest = TelemetryIngest(telemetry)
        conversation = Conversation(
            self.store, self.clock, self.authority, deployments, telemetry, self.ingest
        )
        self.sessions = Sessions(conversation, self.bus)

    def addresses(self) -> Addresses:
        """Return where the hub is."""
        url, mqtt = f"https://{AUTHORITY}", MqttEndpoint("hub.test", 8883)
        return Addresses(url, self.authority.fingerprint, mqtt, AUTHORITY)

    # ---- shortcuts for the stories that tests tell

    def work_off(self) -> None:
        """Do what was put off."""
        while self.jobs:
            self.jobs.pop(0)()

    def put_blob(self, data: bytes) -> Digest:
        """Store bytes as an upload would."""
        return self.blobs.put(io.BytesIO(data))

    def register(self, name: str = "digits", data: bytes = b"model", **more: Any) -> str:
        """Register a model and return `name:version`."""
        digest = self.put_blob(data)
        return self.services.models.register(Registration(name, digest, "m.onnx", **more)).ref

    def image(self, name: str = "digits-image", model: str = "digits") -> str:
        """Package a model's newest version and return `name:version`."""
        image = self.services.images.create(ImageDraft(name, [model]))
        self.work_off()
        return self.services.images.get(image.ref).ref

    def enroll(self, device: str, profile: str = "generic-x86", **tags: Any) -> Enrolled:
        """Invite and enrol a device."""
        claim = self.services.devices.invite(device, tags=tags, life=timedelta(hours=1))
        return self.services.devices.enroll(
            EnrollRequest(claim.split(".")[3], csr(), profile, "1.0")
        )

    def deploy(self, name: str, image: str, condition: str = "*", **more: Any) -> str:
        """Create a deployment of one module and return its id."""
        if isinstance(self.clock, ManualClock):
            self.clock.advance(1)  # the newest wins
        manifest = json.dumps(module_manifest(image)).encode()
        return self.services.deployments.create(Draft(name, manifest, condition, **more)).id

    def version(self, device: str) -> int:
        """Return the desired version of a device, 0 for none."""
        state = self.services.deployments.desired(DeviceId(device))
        return state.version if state else 0

    def opened(self, device: str) -> Desired:
        """Return the desired state of a device as the device reads it."""
        state = self.services.deployments.desired(DeviceId(device))
        assert state is not None
        payload = dsse.open_envelope(
            state.envelope,
            DESIRED_TYPE,
            self.director.public_keys(),
            lambda _key, signature, _message: len(signature) == 64,
        )
        return dsse.read_payload(payload, Desired)

    def report(self, device: str, *, failed: str = "", version: int | None = None) -> None:
        """Let a device tell how its newest update ended."""
        number = self.version(device) if version is None else version
        update: dict[str, Any] = {"version": number, "state": "succeeded"}
        if failed:
            update = {
                "version": number,
                "state": "rolled-back",
                "code": failed,
                "message": "it does not answer",
            }
        reported = {
            "lastDesiredVersion": number,
            "lastDesiredStatus": {"code": 500 if failed else 200},
            "x-update": update,
        }
        self.tell(device, reported)

    def tell(self, device: str, reported: dict[str, Any]) -> None:
        """Store what a device reports and let the deployments know."""
        with self.store.begin() as work:
            found = work.devices.get(DeviceId(device))
            assert found is not None
            updated = replace(found, reported=reported)
            work.devices.put(updated)
            work.commit()
        self.services.deployments.device_reported(updated)

    def states(self, deployment: str) -> dict[str, str]:
        """Return how far a deployment got on each device."""
        members = self.services.deployments.members(deployment)
        return {m.device_id: m.state.value for m in members}


def make_lab(folder: Path, clock: Clock | None = None, store: Store | None = None) -> Lab:
    """Return a hub in a folder; time stands still unless a clock is given."""
    return Lab(folder, clock or ManualClock(), store or MemoryStore(wait_seconds=0.2))


def code_of(call: Callable[[], object]) -> str:
    """Return the code of the FleetError a call ends with."""
    with pytest.raises(FleetError) as caught:
        call()
    assert caught.value.hint
    assert not str(caught.value)[0].isupper()
    return caught.value.code.value


def sha256(data: bytes) -> str:
    """Return the digest of bytes as people write it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
