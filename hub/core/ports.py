"""What the hub's services need from the world, as roles. Adapters play them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import BinaryIO, Protocol

from hub.core.deployment import Deployment, DesiredState, Member
from hub.core.device import Claim, Device, Token
from hub.core.image import Image
from hub.core.model import Model
from hub.core.oci import ManifestRecord
from hub.core.telemetry import Measurement, Quarantined, TelemetryFilter
from protocol.ids import DeviceId, Digest
from protocol.profile import Profile
from protocol.topics import DownKind, UpKind


class Clock(Protocol):
    """Time, as an input."""

    def now(self) -> datetime:
        """Return the present moment, aware, UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back; only differences mean something."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


# ---- persistence ---------------------------------------------------------------------------------


class Devices(Protocol):
    """Devices by id. Lists are in order of id."""

    def get(self, device_id: DeviceId) -> Device | None:
        """Return one device, or None."""
        ...

    def put(self, device: Device) -> None:
        """Insert or replace the device, reported state included."""
        ...

    def list(self, *, after: str = "", limit: int | None = None) -> Sequence[Device]:
        """Return devices with ids beyond `after`."""
        ...

    def set_connected(self, device_id: DeviceId, *, connected: bool, at: datetime) -> None:
        """Record presence; unknown devices are ignored."""
        ...

    def disconnect_all(self) -> None:
        """Mark every device disconnected: the hub has just started."""
        ...


class Claims(Protocol):
    """Enrolment claims by the hash of their secret."""

    def get(self, secret_hash: str) -> Claim | None:
        """Return one claim, or None."""
        ...

    def put(self, claim: Claim) -> None:
        """Insert or replace."""
        ...


class Tokens(Protocol):
    """Operators' access tokens by the hash of their secret."""

    def get(self, secret_hash: str) -> Token | None:
        """Return one token, or None."""
        ...

    def put(self, token: Token) -> None:
        """Insert or replace."""
        ...

    def forget(self, name: str) -> None:
        """Remove every token of this name."""
        ...


class Models(Protocol):
    """Registered models; versions are immutable and count from 1 per name."""

    def get(self, name: str, version: int | None) -> Model | None:
        """Return one version, the newest when `version` is None, or None."""
        ...

    def next_version(self, name: str) -> int:
        """Return the version the next registration of `name` gets; never one used before."""
        ...

    def add(self, model: Model) -> None:
        """Insert a new version."""
        ...

    def list(self, name: str | None = None) -> Sequence[Model]:
        """Return all versions, ordered by name and version."""
        ...


class Images(Protocol):
    """Built images; versions count from 1 per name."""

    def get(self, name: str, version: int | None) -> Image | None:
        """Return one version, the newest when `version` is None, or None."""
        ...

    def next_version(self, name: str) -> int:
        """Return the version the next image of `name` gets."""
        ...

    def put(self, image: Image) -> None:
        """Insert or replace; an image changes only while it is being built."""
        ...

    def list(self, name: str | None = None) -> Sequence[Image]:
        """Return all versions, ordered by name and version."""
        ...


class Deployments(Protocol):
    """Deployments, their members, and the desired state rendered for each device."""

    def get(self, deployment_id: str) -> Deployment | None:
        """Return one deployment, or None."""
        ...

    def put(self, deployment: Deployment) -> None:
        """Insert or replace."""
        ...

    def list(self) -> Sequence[Deployment]:
        """Return all, oldest first."""
        ...

    def members(self, deployment_id: str) -> Sequence[Member]:
        """Return the devices a deployment reaches, in order of device id."""
        ...

    def memberships(self, device_id: DeviceId) -> Sequence[Member]:
        """Return a device's place in every deployment that reaches it."""
        ...

    def put_member(self, member: Member) -> None:
        """Insert or replace by (deployment, device)."""
        ...

    def remove_member(self, deployment_id: str, device_id: DeviceId) -> None:
        """Remove a member; nothing happens when there is none."""
        ...

    def desired(self, device_id: DeviceId) -> DesiredState | None:
        """Return the newest desired state of a device, or None."""
        ...

    def put_desired(self, state: DesiredState) -> None:
        """Insert or replace the desired state of a device."""
        ...


class TelemetryStore(Protocol):
    """Measurements, unique by (device, epoch, seq)."""

    def add(self, rows: Sequence[Measurement]) -> int:
        """Insert rows, skipping those already there; return how many were new."""
        ...

    def quarantine(self, rows: Sequence[Quarantined]) -> None:
        """Keep what could not be accepted, the newest 100 per device; repeated rows are ignored."""
        ...

    def quarantined(
        self, device: DeviceId | None = None, *, limit: int = 100
    ) -> Sequence[Quarantined]:
        """Return the newest quarantined messages, in order of arrival."""
        ...

    def tail(self, wanted: TelemetryFilter) -> Sequence[Measurement]:
        """Return matching rows in order of arrival (`Measurement.id`)."""
        ...

    def each(self, wanted: TelemetryFilter) -> Iterator[Measurement]:
        """Yield matching rows in order of arrival without holding them all."""
        ...

    def count(self) -> int:
        """Return the number of rows stored."""
        ...

    def counts_by_device(self) -> dict[DeviceId, int]:
        """Return the number of rows per device."""
        ...


class OciIndex(Protocol):
    """Which manifests, tags and blobs each repository of the embedded registry holds."""

    def repositories(self) -> Sequence[str]:
        """Return all repositories in lexical order."""
        ...

    def manifest(self, repository: str, digest: Digest) -> ManifestRecord | None:
        """Return a manifest of the repository, or None."""
        ...

    def put_manifest(self, repository: str, record: ManifestRecord) -> None:
        """Insert; the same digest again changes nothing."""
        ...

    def delete_manifest(self, repository: str, digest: Digest) -> bool:
        """Remove a manifest and the tags that name it; tell whether it was there."""
        ...

    def tag(self, repository: str, tag: str) -> Digest | None:
        """Return what a tag names, or None."""
        ...

    def put_tag(self, repository: str, tag: str, digest: Digest) -> None:
        """Point a tag at a manifest."""
        ...

    def delete_tag(self, repository: str, tag: str) -> bool:
        """Remove a tag; tell whether it was there."""
        ...

    def tags(self, repository: str, *, last: str = "", limit: int | None = None) -> Sequence[str]:
        """Return tags in lexical order beyond `last`."""
        ...

    def referrers(self, repository: str, subject: Digest) -> Sequence[ManifestRecord]:
        """Return the manifests whose subject is `subject`, in order of digest."""
        ...

    def link_blob(self, repository: str, digest: Digest) -> None:
        """Make a stored blob visible in a repository."""
        ...

    def has_blob(self, repository: str, digest: Digest) -> bool:
        """Tell whether a blob is visible in a repository."""
        ...

    def unlink_blob(self, repository: str, digest: Digest) -> bool:
        """Hide a blob from a repository; tell whether it was visible."""
        ...

    def repositories_of_blob(self, digest: Digest) -> Sequence[str]:
        """Return the repositories a blob is visible in."""
        ...


class UnitOfWork(Protocol):
    """One transaction over everything the hub keeps in its database."""

    devices: Devices
    claims: Claims
    tokens: Tokens
    models: Models
    images: Images
    deployments: Deployments
    telemetry: TelemetryStore
    oci: OciIndex

    def commit(self) -> None:
        """Make everything since the beginning durable; what is not committed never happened."""
        ...

    def get_setting(self, key: str) -> str | None:
        """Return a value the hub keeps about itself, or None."""
        ...

    def put_setting(self, key: str, value: str) -> None:
        """Keep a value the hub keeps about itself."""
        ...


class Store(Protocol):
    """Where units of work come from. Safe to use from several threads."""

    def begin(self, *, write: bool = True) -> AbstractContextManager[UnitOfWork]:
        """Open a transaction; leaving the block without `commit` rolls back.

        Raises:
            UnavailableError: `database-unavailable`.
        """
        ...

    def close(self) -> None:
        """Release every connection."""
        ...


class Blobs(Protocol):
    """Content-addressed bytes. Safe to use from several threads."""

    def has(self, digest: Digest) -> bool:
        """Tell whether the bytes are there, whole."""
        ...

    def size(self, digest: Digest) -> int:
        """Return the size in bytes, or raise NotFoundError (`blob-unknown`)."""
        ...

    def open(self, digest: Digest) -> BinaryIO:
        """Open for reading, or raise NotFoundError (`blob-unknown`)."""
        ...

    def put(self, source: BinaryIO, *, expected: Digest | None = None) -> Digest:
        """Store everything `source` yields, durably, and return its digest.

        Raises:
            InvalidError: `digest-mismatch`; nothing is kept then.
            UnavailableError: `disk-full`.
        """
        ...


# ---- devices on the wire -------------------------------------------------------------------------


class BusHandler(Protocol):
    """The hub above the bus; it knows no topics."""

    async def authorize(self, device: DeviceId, certificate_der: bytes) -> None:
        """Return when the device may connect with this certificate (DER).

        Raises:
            FleetError: It may not. Any other exception: the hub cannot decide now.
        """
        ...

    async def connected(self, device: DeviceId) -> None:
        """Take note that a device can be reached."""
        ...

    async def disconnected(self, device: DeviceId) -> None:
        """Take note that a device cannot be reached any more."""
        ...

    async def message(self, device: DeviceId, kind: UpKind, body: bytes) -> None:
        """Process a message; return after the commit.

        Raises:
            FleetError: The message is refused for good, unless the error is retryable. A retryable
                one and any other exception: not processed, the device must send it again.
        """
        ...


class DeviceBus(Protocol):
    """How the hub and its devices exchange small messages. It may lose everything."""

    async def start(self, handler: BusHandler) -> None:
        """Begin to serve, or raise FleetError (`port-in-use`, `broker-unreachable`)."""
        ...

    async def stop(self) -> None:
        """Stop gracefully: nothing new is taken, what is in flight is answered."""
        ...

    async def send(self, device: DeviceId, kind: DownKind, body: bytes) -> bool:
        """Hand a message to the transport; False when the device is not connected."""
        ...

    async def kick(self, device: DeviceId) -> None:
        """Close the live session of a device at once."""
        ...

    def connected_devices(self) -> frozenset[DeviceId]:
        """Return the devices that can be reached now."""
        ...


# ---- trust ---------------------------------------------------------------------------------------


class Authority(Protocol):
    """The hub's certificate authority."""

    def issue(self, csr_pem: str, device: DeviceId) -> str:
        """Sign a device's key; everything else in the request is ignored. Returns a PEM chain.

        Raises:
            InvalidError: `request-invalid`, for a request that does not parse or verify, or a weak
                key.
        """
        ...

    def roots_pem(self) -> str:
        """Return the certificates devices pin."""
        ...

    def identify(self, certificate_der: bytes) -> DeviceId:
        """Return whose certificate this is, when this authority issued it and it is in force.

        Raises:
            DeniedError: `certificate-invalid`.
        """
        ...

    def issued_at(self, certificate_der: bytes) -> datetime:
        """Return when a certificate that `identify` accepts was issued, in whole seconds, UTC."""
        ...


class Director(Protocol):
    """The key that signs desired states."""

    def public_keys(self) -> dict[str, bytes]:
        """Return the Ed25519 public keys (32 bytes) by key id that devices pin."""
        ...

    def seal(self, payload_type: str, payload: bytes) -> bytes:
        """Return a signed envelope."""
        ...


class Profiles(Protocol):
    """The known device profiles."""

    def get(self, name: str) -> Profile:
        """Return one profile, or raise NotFoundError (`profile-unknown`)."""
        ...

    def list(self) -> Sequence[Profile]:
        """Return all profiles in order of name."""
        ...
