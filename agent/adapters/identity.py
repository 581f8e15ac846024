"""The device's identity on disk: made at enrolment, renewed in place, read at every start.

`<home>/identity/` holds `credential.pem` (private key and certificate chain in one file, so that
one rename swaps both), `ca.pem`, and `enrolled.json`, whose presence says the enrolment is done.
The private key is made here and never leaves.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from agent.adapters.durable_files import write_atomically
from agent.adapters.trust import client_context, find_pinned_root
from agent.core.claim import Claim, parse_claim
from agent.core.ports import HubApi, Identity
from protocol import codec
from protocol.errors import Code, ConflictError, DeniedError, FleetError, UnavailableError
from protocol.ids import parse_device_id
from protocol.messages import Enrolled, EnrollRequest

ContextFactory = Callable[[], ssl.SSLContext]
OpenHub = Callable[[Claim], Awaitable[HubApi]]
_MAX_FILE_BYTES = 1024 * 1024
_DIRECTOR_KEY_BYTES = 32


class _Stored(msgspec.Struct, frozen=True, rename="camel"):
    """Content of `enrolled.json`."""

    hub_url: str
    enrolled: Enrolled


@dataclass(frozen=True, slots=True)
class _Files:
    folder: Path

    @property
    def credential(self) -> Path:
        return self.folder / "credential.pem"

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def enrolled(self) -> Path:
        return self.folder / "enrolled.json"


async def enroll(
    claim_token: str, home: Path, profile: str, *, agent_version: str, open_hub: OpenHub
) -> Identity:
    """Trade a claim for an identity and store it durably.

    Args:
        claim_token: As the operator handed it out.
        home: Folder of the agent's files; made when it is not there.
        profile: Name of the device profile this device is.
        agent_version: Version to report.
        open_hub: Makes first contact with the hub a claim names, see hub_api.open_pinned.

    Raises:
        FleetError: `already-enrolled`, `claim-invalid`, `certificate-invalid`, `disk-full`, and
            whatever HubApi.enroll raises.
    """
    claim = parse_claim(claim_token)
    files = _Files(home / "identity")
    _prepare(files)
    key = ec.generate_private_key(ec.SECP256R1())
    hub = await open_hub(claim)
    request = EnrollRequest(claim.secret, _request_pem(key), profile, agent_version)
    enrolled = await hub.enroll(request)
    _check(enrolled, key, claim.ca_fingerprint)
    _write(files.credential, _key_pem(key) + enrolled.certificate.encode())
    _write(files.ca, enrolled.ca.encode())
    _write(files.enrolled, codec.encode(_Stored(claim.hub_url, enrolled)))
    return Identity(parse_device_id(enrolled.device), claim.hub_url, enrolled)


def load_identity(home: Path) -> tuple[Identity, ContextFactory]:
    """Return who this device is, and what makes its TLS contexts towards the hub.

    The factory reads the certificate anew on every call, so it follows a renewal.

    Raises:
        FleetError: `not-enrolled`; `certificate-invalid` when a file is damaged or missing.
    """
    files = _Files(home / "identity")
    if not files.enrolled.exists():
        raise ConflictError(
            f"the agent in {str(home)!r} has no identity yet",
            code=Code.NOT_ENROLLED,
            hint="enrol it: `rimward-agent enroll --claim ...`",
        )
    try:
        stored = codec.decode(_read(files.enrolled), _Stored)
        device = parse_device_id(stored.enrolled.device)
        _, separator, chain = _read(files.credential).decode().partition("-----BEGIN CERTIFICATE")
        ca_pem = _read(files.ca).decode()
        certificate_validity(separator + chain)
    except (FleetError, OSError, ValueError) as error:
        raise _damaged(files.folder) from error
    enrolled = msgspec.structs.replace(stored.enrolled, certificate=separator + chain, ca=ca_pem)

    def make_context() -> ssl.SSLContext:
        return client_context(ca_pem, files.credential)

    make_context()
    return Identity(device, stored.hub_url, enrolled), make_context


async def renew(home: Path, identity: Identity, hub: HubApi) -> Identity:
    """Get a certificate for a new key and put both in the place of the old ones, at once.

    A crash on the way leaves the old pair. Connections opened from now on show the new one.

    Raises:
        FleetError: Whatever HubApi.renew raises; `certificate-invalid`, `disk-full`.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    chain = await hub.renew(_request_pem(key))
    _check_leaf(chain, key, identity.device)
    _write(_Files(home / "identity").credential, _key_pem(key) + chain.encode())
    enrolled = msgspec.structs.replace(identity.enrolled, certificate=chain)
    return Identity(identity.device, identity.hub_url, enrolled)


def certificate_validity(chain_pem: str) -> tuple[datetime, datetime]:
    """Return (not before, not after) of a chain's leaf, aware, UTC; ValueError when unreadable."""
    leaf = x509.load_pem_x509_certificate(chain_pem.encode())
    return leaf.not_valid_before_utc, leaf.not_valid_after_utc


def _check(enrolled: Enrolled, key: ec.EllipticCurvePrivateKey, fingerprint: str) -> None:
    parse_device_id(enrolled.device)
    _check_leaf(enrolled.certificate, key, enrolled.device)
    find_pinned_root(enrolled.ca.encode(), fingerprint)
    sizes = {len(director_key) for director_key in enrolled.director_keys.values()}
    if sizes != {_DIRECTOR_KEY_BYTES}:
        raise _unusable("names no key that may sign desired states, or a malformed one")


def _check_leaf(chain_pem: str, key: ec.EllipticCurvePrivateKey, device: str) -> None:
    try:
        leaf = x509.load_pem_x509_certificate(chain_pem.encode())
    except ValueError as error:
        raise _unusable("holds no certificate that can be read") from error
    names = [name.value for name in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [device] or leaf.public_key() != key.public_key():
        raise _unusable(f"holds a certificate that is not for this key and device {device!r}")


def _request_pem(key: ec.EllipticCurvePrivateKey) -> str:
    # The hub takes the public key alone and sets every name itself.
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _prepare(files: _Files) -> None:
    if files.enrolled.exists():
        raise ConflictError(
            f"the agent in {str(files.folder.parent)!r} already has an identity",
            code=Code.ALREADY_ENROLLED,
            hint=f"to enrol it anew, remove {str(files.folder)!r} first",
        )
    try:
        files.folder.mkdir(parents=True, exist_ok=True)
        files.folder.chmod(0o700)
    except OSError as error:
        raise _unwritable(files.folder) from error


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_FILE_BYTES)


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomically(path, content)
    except OSError as error:
        raise _unwritable(path) from error


def _unwritable(path: Path) -> UnavailableError:
    return UnavailableError(
        f"{str(path)!r} cannot be written",
        code=Code.DISK_FULL,
        hint="free some space, and make the folder writable for the agent's user",
    )


def _damaged(folder: Path) -> DeniedError:
    return DeniedError(
        f"the identity in {str(folder)!r} is damaged",
        code=Code.CERTIFICATE_INVALID,
        hint=f"remove {str(folder)!r}, then `rimward-agent enroll --claim ...`",
    )


def _unusable(why: str) -> DeniedError:
    return DeniedError(
        f"the hub's answer {why}",
        code=Code.CERTIFICATE_INVALID,
        hint="hub and agent may be of versions that do not go together: update the older one",
    )
