"""One example of every message and document on the wire, and where its golden file lies.

Keys and certificates are made from fixed bytes, so the same examples come out every time.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from protocol import codec, dsse
from protocol.messages import (
    DESIRED_TYPE,
    Ack,
    Credential,
    CredentialRequest,
    Desired,
    DesiredGet,
    Enrolled,
    EnrollRequest,
    Envelope,
    MqttEndpoint,
    Problem,
    Renewed,
    RenewRequest,
    Reported,
    ReportedAck,
    Status,
    Telemetry,
    TelemetryRecord,
)

GOLDEN = Path(__file__).resolve().parent / "golden" / "protocol"
KEY_ID = "director-1"
DIRECTOR = Ed25519PrivateKey.from_private_bytes(b"a director key for the tests ...")
DEVICE_KEY = Ed25519PrivateKey.from_private_bytes(b"a device key for the tests .....")
AUTHORITY = Ed25519PrivateKey.from_private_bytes(b"an authority for the tests .....")
DEVICE = "pi-7"
ISSUED = 1_900_000_000  # seconds since 1970
IMAGE = "hub.example:8443/digits@sha256:" + "0123456789abcdef" * 4

MANIFEST: dict[str, Any] = {
    "modulesContent": {
        "$edgeAgent": {
            "properties.desired": {
                "schemaVersion": "1.1",
                "modules": {
                    "digits": {
                        "type": "docker",
                        "status": "running",
                        "restartPolicy": "always",
                        "settings": {"image": IMAGE},
                    }
                },
            }
        },
        "$edgeHub": {
            "properties.desired": {
                "schemaVersion": "1.1",
                "routes": {"up": "FROM /messages/* INTO $upstream"},
            }
        },
    }
}


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _certificate(subject: str, key: Ed25519PrivateKey, *, serial: int) -> str:
    start = dt.datetime.fromtimestamp(ISSUED, dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name("authority"))
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=30))
        .sign(AUTHORITY, None)
    )
    return certificate.public_bytes(Encoding.PEM).decode()


def _request() -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(DEVICE))
    return builder.sign(DEVICE_KEY, None).public_bytes(Encoding.PEM).decode()


def _record(seq: int, body: bytes) -> TelemetryRecord:
    return TelemetryRecord(
        seq=seq,
        module="digits",
        output="results",
        at=ISSUED * 1000 + seq,
        body=body,
        properties={"contentType": "application/json"},
    )


DESIRED = Desired(
    device=DEVICE,
    epoch=1,
    version=12,
    issued=ISSUED,
    expires=ISSUED + 86_400,
    deployment="all-pis",
    manifest=msgspec.json.encode(MANIFEST).decode(),
)


def samples() -> dict[str, msgspec.Struct]:
    """Return every example by the name of its golden file."""
    desired = codec.encode(DESIRED)
    envelope = dsse.seal(DESIRED_TYPE, desired, KEY_ID, DIRECTOR.sign)
    return {
        "telemetry": Telemetry("e1", [_record(1, b'{"digit":7}'), _record(2, b'{"digit":1}')]),
        "reported": Reported(
            4,
            {
                "lastDesiredVersion": 12,
                "lastDesiredStatus": {"code": 200, "description": ""},
                "modules": {"digits": {"runtimeStatus": "running", "restartCount": 0}},
            },
        ),
        "desired-get": DesiredGet(epoch=1, have=11),
        "status": Status(connected=True),
        "ack": Ack("e1", ranges=[(1, 40), (42, 42)], refused=[41]),
        "reported-ack": ReportedAck(4),
        "desired": DESIRED,
        "envelope": codec.decode(envelope, Envelope),
        "enroll-request": EnrollRequest(
            claim="claim-0123456789abcdef",
            csr=_request(),
            profile="raspberry-pi-4",
            agent_version="0.1.0",
        ),
        "enrolled": Enrolled(
            device=DEVICE,
            certificate=_certificate(DEVICE, DEVICE_KEY, serial=7),
            ca=_certificate("authority", AUTHORITY, serial=1),
            director_keys={KEY_ID: DIRECTOR.public_key().public_bytes_raw()},
            mqtt=MqttEndpoint("hub.example", 8883),
            registry="hub.example:8443",
        ),
        "renew-request": RenewRequest(csr=_request()),
        "renewed": Renewed(certificate=_certificate(DEVICE, DEVICE_KEY, serial=8)),
        "credential-request": CredentialRequest(image=IMAGE),
        "credential": Credential(kind="bearer", token="0123456789abcdef", expires=ISSUED + 300),
        "problem": Problem(
            code="claim-invalid",
            message="claim 'claim-0123...' was used already",
            hint="ask for a new one with `rimward device invite pi-7`",
        ),
    }
