"""Which desired states the agent accepts: signed, for this device, newer than any before. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from agent.core.plan import ModuleSpec, spec_of
from protocol import dsse
from protocol.errors import Code, ConflictError, DeniedError
from protocol.ids import DeviceId, ModuleName
from protocol.manifest import Manifest, parse_manifest
from protocol.messages import DESIRED_TYPE, Desired


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """Where a desired state stands in the order of all that a device may ever get."""

    epoch: int = 0
    version: int = 0


@dataclass(frozen=True, slots=True)
class Accepted:
    """A desired state that has been verified and read.

    Attributes:
        version: Where it stands in the order of all.
        deployment: Deployment it came from.
        manifest: The manifest as it was sent.
        specs: What shall be on the device, by module.
    """

    version: Version
    deployment: str
    manifest: Manifest
    specs: Mapping[ModuleName, ModuleSpec]


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom this device believes.

    Attributes:
        device: Its own id; documents for others are refused.
        keys: Ed25519 public keys by id that may sign.
        verify: (public key, signature, message) -> whether it holds.
    """

    device: DeviceId
    keys: Mapping[str, bytes]
    verify: dsse.Verify


def read(envelope: bytes, trust: Trust) -> tuple[Desired, Accepted]:
    """Verify and read an envelope, without asking whether it is new.

    Raises:
        InvalidError: `message-invalid`, `too-large`, `manifest-invalid`, `id-invalid`.
        DeniedError: `signature-invalid`, also for a document meant for another device.
    """
    payload = dsse.open_envelope(envelope, DESIRED_TYPE, trust.keys, trust.verify)
    document = dsse.read_payload(payload, Desired)
    if document.device != trust.device:
        raise DeniedError(
            f"the desired state is for device {document.device!r}, this is {trust.device!r}",
            code=Code.SIGNATURE_INVALID,
            hint="the hub mixes up its devices, or somebody replays another device's document",
        )
    manifest = parse_manifest(document.manifest.encode())
    version = Version(document.epoch, document.version)
    specs = {name: spec_of(name, module) for name, module in manifest.modules.items()}
    return document, Accepted(version, document.deployment, manifest, specs)


def accept(
    envelope: bytes, trust: Trust, floor: Version, now: datetime, *, held: bool = True
) -> Accepted | None:
    """Return a desired state that is new and may be installed; None for the one held already.

    Args:
        envelope: As it came from the hub.
        trust: Whom to believe.
        floor: The highest version ever accepted.
        now: The present moment.
        held: Whether the document of the floor is still there; if it was lost it is taken again.

    Raises:
        ConflictError: `version-rolled-back` below the floor, `document-expired`.
        InvalidError: As `read`.
        DeniedError: As `read`.
    """
    document, accepted = read(envelope, trust)
    if accepted.version == floor and held:
        return None
    if accepted.version < floor:
        raise ConflictError(
            f"desired version {accepted.version.version} is older than {floor.version}",
            code=Code.VERSION_ROLLED_BACK,
            hint="the hub was restored from a backup, or an old document is replayed",
        )
    if now.timestamp() > document.expires:
        raise ConflictError(
            f"desired version {accepted.version.version} has expired",
            code=Code.DOCUMENT_EXPIRED,
            hint="check the clocks of hub and device; what runs goes on running",
        )
    return accepted
