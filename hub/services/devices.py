"""Devices: invite, enrol, list, label, renew, retire."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import structlog

from hub.core import device as rules
from hub.core.device import Claim, Device, DeviceState
from hub.core.ports import Authority, Clock, Director, Profiles, Store
from protocol.errors import Code, DeniedError, FleetError, InvalidError, NotFoundError
from protocol.ids import DeviceId, parse_device_id
from protocol.messages import Enrolled, EnrollRequest, MqttEndpoint
from protocol.twin import check_patch, merge

MAX_CLAIM_LIFE = timedelta(days=30)
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Addresses:
    """How devices reach this hub.

    Attributes:
        url: Base URL of the HTTPS listener.
        ca_fingerprint: Hex SHA-256 of the root certificate's DER.
        mqtt: The MQTT endpoint: the built-in front, or an external broker.
        registry: Authority of the embedded registry; empty with an external one.
    """

    url: str
    ca_fingerprint: str
    mqtt: MqttEndpoint
    registry: str


@dataclass(frozen=True, slots=True)
class DeviceService:
    """Use cases around devices.

    `addresses` is asked when they are needed: ports are known only once the hub listens.
    `changed` is called after the commit with every device whose facts changed; `revoked` with every
    device that lost its trust.
    """

    store: Store
    clock: Clock
    authority: Authority
    director: Director
    profiles: Profiles
    addresses: Callable[[], Addresses]
    changed: Callable[[DeviceId], None]
    revoked: Callable[[DeviceId], None]

    def invite(self, device_id: str, *, tags: dict[str, Any], life: timedelta) -> str:
        """Return a single-use claim token for a device that shall enrol; it is shown only here.

        Raises:
            InvalidError: `id-invalid`, `twin-invalid`, `request-invalid` for a life that is not
                positive or longer than 30 days.
            ConflictError: `device-exists`.
        """
        if not timedelta(0) < life <= MAX_CLAIM_LIFE:
            raise InvalidError(
                "a claim lives between a second and 30 days",
                code=Code.REQUEST_INVALID,
                hint="for example `--hours 24`",
            )
        parsed, secret = parse_device_id(device_id), secrets.token_urlsafe(24)
        first = merge({}, check_patch(tags, what="tags"))
        claim = Claim(rules.hash_secret(secret), parsed, first, self.clock.now() + life)
        with self.store.begin() as work:
            rules.check_free(work.devices.get(parsed))
            work.claims.put(claim)
            work.commit()
        log.info("device.invited", device=parsed)
        return rules.claim_token(self.addresses().url, self.addresses().ca_fingerprint, secret)

    def enroll(self, request: EnrollRequest) -> Enrolled:
        """Trade a claim and a certificate request for an identity.

        Raises:
            DeniedError: `claim-invalid`.
            ConflictError: `device-exists`.
            NotFoundError: `profile-unknown`.
            InvalidError: `request-invalid`, for a bad certificate request.
        """
        profile = self.profiles.get(request.profile)
        secret_hash = rules.hash_secret(request.claim)
        with self.store.begin(write=False) as work:  # strangers do not get to hold up writers
            _known_claim(work.claims.get(secret_hash))
        with self.store.begin() as work:
            now = self.clock.now()
            claim = _known_claim(work.claims.get(secret_hash))
            work.claims.put(claim.use(now))
            rules.check_free(work.devices.get(claim.device_id))
            certificate = self.authority.issue(request.csr, claim.device_id)
            device = Device(
                id=claim.device_id,
                profile=profile.name,
                state=DeviceState.ENROLLED,
                enrolled_at=now,
                agent_version=request.agent_version[:64],
                tags=claim.tags,
            )
            work.devices.put(device)
            work.commit()
        log.info("device.enrolled", device=device.id, profile=profile.name)
        try:
            self.changed(device.id)
        except FleetError as error:  # the claim is spent: the device must get its certificate
            log.warning("device.not_enlisted", device=device.id, code=error.code, why=str(error))
        return Enrolled(
            device=device.id,
            certificate=certificate,
            ca=self.authority.roots_pem(),
            director_keys=self.director.public_keys(),
            mqtt=self.addresses().mqtt,
            registry=self.addresses().registry,
        )

    def authenticate(self, certificate_der: bytes) -> DeviceId:
        """Return the trusted device behind a certificate.

        Raises:
            DeniedError: `certificate-invalid`.
        """
        device_id = self.authority.identify(certificate_der)
        with self.store.begin(write=False) as work:
            device = work.devices.get(device_id)
        if device is None:
            raise DeniedError(
                f"device {device_id!r} is not known",
                code=Code.CERTIFICATE_INVALID,
                hint="enrol it: `rimward device invite`",
            )
        device.check_trusted()
        issued = self.authority.issued_at(certificate_der)
        rules.check_issued(device_id, issued, device.enrolled_at)
        return device_id

    def renew(self, device_id: DeviceId, csr: str) -> str:
        """Return a new certificate chain for a trusted device."""
        self.get(device_id).check_trusted()
        chain = self.authority.issue(csr, device_id)
        log.info("device.renewed", device=device_id)
        return chain

    def get(self, device_id: str) -> Device:
        """Return one device, or raise NotFoundError (`device-unknown`)."""
        with self.store.begin(write=False) as work:
            return _known(work.devices.get(parse_device_id(device_id)), device_id)

    def list(self, *, after: str = "", limit: int | None = None) -> Sequence[Device]:
        """Return devices in order of id, beyond `after`."""
        with self.store.begin(write=False) as work:
            return work.devices.list(after=after, limit=limit)

    def set_tags(self, device_id: str, patch: dict[str, Any]) -> Device:
        """Merge a patch into a device's tags (null removes) and return the device."""
        check_patch(patch, what="tags")
        with self.store.begin() as work:
            device = _known(work.devices.get(parse_device_id(device_id)), device_id)
            device = replace(device, tags=merge(device.tags, patch))
            work.devices.put(device)
            work.commit()
        log.info("device.tagged", device=device.id)
        self.changed(device.id)
        return device

    def retire(self, device_id: str) -> Device:
        """Stop trusting a device, at once. Retiring twice is not an error."""
        with self.store.begin() as work:
            device = _known(work.devices.get(parse_device_id(device_id)), device_id).retired()
            work.devices.put(device)
            work.commit()
        log.info("device.retired", device=device.id)
        self.revoked(device.id)
        self.changed(device.id)
        return device


def _known_claim(claim: Claim | None) -> Claim:
    if claim is None:
        raise rules.refuse_claim("is not known here")
    return claim


def _known(device: Device | None, device_id: str) -> Device:
    if device is None:
        raise NotFoundError(
            f"no device {device_id!r}",
            code=Code.DEVICE_UNKNOWN,
            hint="list them with `rimward device list`",
        )
    return device
