"""A device, the claim it enrols with, and the tokens of the people who administer it."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from protocol.errors import Code, ConflictError, DeniedError
from protocol.ids import DeviceId


class DeviceState(StrEnum):
    """The life of a device."""

    ENROLLED = "enrolled"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class Device:
    """One enrolled device.

    Attributes:
        id: Its name everywhere: certificate, topics, queries.
        profile: Name of its device profile.
        state: Whether it is trusted.
        tags: The operator's part of the twin.
        reported: The device's part of the twin.
        reported_revision: Revision of `reported`; older ones are ignored.
        agent_version: Version of the agent that enrolled.
        enrolled_at: When it got its first certificate.
        connected: Whether it can be reached now.
        last_seen: When it last connected, disconnected or reported.
    """

    id: DeviceId
    profile: str
    state: DeviceState
    enrolled_at: datetime
    agent_version: str = ""
    tags: dict[str, Any] = field(default_factory=dict)
    reported: dict[str, Any] = field(default_factory=dict)
    reported_revision: int = 0
    connected: bool = False
    last_seen: datetime | None = None

    def retired(self) -> Device:
        """Return the device as no longer trusted."""
        return replace(self, state=DeviceState.RETIRED, connected=False)

    def check_trusted(self) -> None:
        """Raise DeniedError (`certificate-invalid`) when the device was retired."""
        if self.state is not DeviceState.ENROLLED:
            raise DeniedError(
                f"device {self.id!r} is retired",
                code=Code.CERTIFICATE_INVALID,
                hint="enrol it again with a new claim: `rimward device invite`",
            )


def check_issued(device_id: DeviceId, issued: datetime, enrolled: datetime) -> None:
    """Refuse what an earlier device of this name was given: retiring that one ended it for good.

    Args:
        device_id: Whom the certificate names.
        issued: When it was issued, in whole seconds.
        enrolled: When the present device of this name enrolled.

    Raises:
        DeniedError: `certificate-invalid`.
    """
    if issued < enrolled.replace(microsecond=0):
        raise DeniedError(
            f"the certificate is of a device that was {device_id!r} before",
            code=Code.CERTIFICATE_INVALID,
            hint="enrol it under another name: `rimward device invite`",
        )


@dataclass(frozen=True, slots=True)
class Claim:
    """A single-use permission to enrol; only the hash of its secret is kept.

    Attributes:
        secret_hash: Hex SHA-256 of the secret.
        device_id: The only id that may enrol with it.
        tags: Tags the device starts with.
        expires_at: After this it is void.
        used_at: When it was used, if it was.
    """

    secret_hash: str
    device_id: DeviceId
    tags: dict[str, Any]
    expires_at: datetime
    used_at: datetime | None = None

    def use(self, now: datetime) -> Claim:
        """Return the claim as used, or raise DeniedError (`claim-invalid`)."""
        if self.used_at is not None:
            raise refuse_claim("has been used already")
        if now >= self.expires_at:
            raise refuse_claim("has expired")
        return replace(self, used_at=now)


def refuse_claim(why: str) -> DeniedError:
    """Return the error for a claim that does not hold."""
    return DeniedError(
        f"the claim token {why}",
        code=Code.CLAIM_INVALID,
        hint="ask the hub's operator for a new one: `rimward device invite`",
    )


def check_free(existing: Device | None) -> None:
    """Raise ConflictError (`device-exists`) when an enrolled device has the id already."""
    if existing is not None and existing.state is DeviceState.ENROLLED:
        raise ConflictError(
            f"device {existing.id!r} is already enrolled",
            code=Code.DEVICE_EXISTS,
            hint=f"retire it first: `rimward device retire {existing.id}`",
        )


@dataclass(frozen=True, slots=True)
class Token:
    """An operator's access token; only its hash is kept."""

    secret_hash: str
    name: str
    role: str
    created_at: datetime
    expires_at: datetime


def hash_secret(secret: str) -> str:
    """Return the hex SHA-256 under which a high-entropy secret is kept."""
    return hashlib.sha256(secret.encode()).hexdigest()


def claim_token(hub_url: str, ca_fingerprint: str, secret: str) -> str:
    """Return what the operator gives to the device: where the hub is, whom to trust, the secret.

    Args:
        hub_url: Base URL of the hub's HTTPS listener.
        ca_fingerprint: Hex SHA-256 of the DER of the root certificate.
        secret: The claim's secret.
    """
    url = base64.urlsafe_b64encode(hub_url.encode()).decode().rstrip("=")
    return f"rw1.{url}.{ca_fingerprint}.{secret}"
