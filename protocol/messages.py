"""Every message between a device and its hub, and every document that passes between them.

The version stands in the topic (`rimward/v1/...`) and in the paths of the device API; golden
samples of each message are in `tests/golden/protocol/`.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

Seq = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
Millis = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
MAX_RECORDS = 1000


class _Message(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Base of every message: camelCase on the wire, unknown fields refused."""


# ---- over MQTT, device to hub -------------------------------------------------------------------


class TelemetryRecord(_Message, frozen=True):
    """One message a module sent.

    Attributes:
        seq: Counts from 1 within an epoch of the device's store.
        module: Module it came from.
        output: Output of the module it left by.
        at: Device time in milliseconds since 1970; advisory, order is by `seq`.
        body: The message itself; base64 on the wire.
        properties: Application properties.
    """

    seq: Seq
    module: str
    output: str
    at: Millis
    body: bytes
    properties: dict[str, str] = {}


class Telemetry(_Message, frozen=True):
    """Records of one epoch. The device keeps each until an Ack names it."""

    epoch: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    records: Annotated[list[TelemetryRecord], msgspec.Meta(min_length=1, max_length=MAX_RECORDS)]


class Reported(_Message, frozen=True):
    """The whole reported state; `revision` rises with every change, older ones are dropped."""

    revision: Seq
    reported: dict[str, Any]


class DesiredGet(_Message, frozen=True):
    """Ask for the desired state; `epoch` and `have` are of the one the device holds, 0 for none."""

    epoch: Annotated[int, msgspec.Meta(ge=0)]
    have: Annotated[int, msgspec.Meta(ge=0)]


class Status(_Message, frozen=True):
    """Presence, for transports that do not show it; also the last will."""

    connected: bool


# ---- over MQTT, hub to device -------------------------------------------------------------------


class Ack(_Message, frozen=True):
    """Records the hub has committed: inclusive ranges of `seq`.

    `refused` names records that will never be accepted; the device counts and drops them.
    """

    epoch: str
    ranges: list[tuple[int, int]]
    refused: list[int] = []


class ReportedAck(_Message, frozen=True):
    """The hub holds the reported state up to `revision`."""

    revision: int


# ---- signed documents ---------------------------------------------------------------------------


class Signature(_Message, frozen=True):
    """One signature of an envelope."""

    keyid: str
    sig: bytes


class Envelope(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A DSSE envelope: signatures over the exact bytes of `payload` and its type."""

    payload_type: str
    payload: bytes
    signatures: Annotated[list[Signature], msgspec.Meta(min_length=1, max_length=8)]


DESIRED_TYPE = "application/vnd.rimward.desired+json"


class Desired(_Message, frozen=True):
    """The payload of a signed desired state: what one device shall run.

    Attributes:
        device: The only device this is for.
        epoch: Raised when the hub was restored; compared before `version`.
        version: Strictly increasing per device within an epoch.
        issued: Seconds since 1970.
        expires: Seconds since 1970; expiry stops new installs, never what runs.
        deployment: Deployment it came from; empty when none targets the device.
        manifest: The manifest as JSON text, images pinned by digest.
    """

    device: str
    epoch: Annotated[int, msgspec.Meta(ge=1)]
    version: Annotated[int, msgspec.Meta(ge=1)]
    issued: int
    expires: int
    deployment: str
    manifest: str


# ---- device API (HTTPS) -------------------------------------------------------------------------


class EnrollRequest(_Message, frozen=True):
    """Trade a claim for a certificate."""

    claim: str
    csr: str
    profile: str
    agent_version: str


class MqttEndpoint(_Message, frozen=True):
    """Where the device connects; TLS always."""

    host: str
    port: int


class Enrolled(_Message, frozen=True):
    """What a device keeps from its enrolment.

    Attributes:
        device: Its id, also the certificate's common name.
        certificate: PEM chain, leaf first.
        ca: PEM of the roots that vouch for the hub.
        director_keys: Ed25519 public keys (32 bytes) by key id that may sign desired states.
        mqtt: Where to connect.
        registry: Authority (host:port) of the registry that stands behind the hub's own address;
            empty when images live in an external registry.
    """

    device: str
    certificate: str
    ca: str
    director_keys: dict[str, bytes]
    mqtt: MqttEndpoint
    registry: str


class RenewRequest(_Message, frozen=True):
    """Ask for a new certificate over the old one's connection."""

    csr: str


class Renewed(_Message, frozen=True):
    """The new certificate chain in PEM, leaf first."""

    certificate: str


class CredentialRequest(_Message, frozen=True):
    """Ask for the means to pull one image of the current desired state."""

    image: str


class Credential(_Message, frozen=True):
    """Means to pull: a bearer token, or a user name and password for an external registry.

    Attributes:
        kind: `bearer`, `basic` or `anonymous`.
        expires: Seconds since 1970; 0 when it does not expire.
        ca: PEM of roots that vouch for the registry, besides those the device trusts already.
    """

    kind: str
    token: str = ""
    username: str = ""
    password: str = ""
    expires: int = 0
    ca: str = ""


class Problem(_Message, frozen=True):
    """How every failed HTTP call answers."""

    code: str
    message: str
    hint: str = ""
