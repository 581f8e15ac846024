"""Golden files: what stands on the wire today is read and written for ever.

`make golden` (RIMWARD_UPDATE_GOLDEN=1) writes the files anew; the difference is reviewed like code.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from wire_samples import DEVICE, DIRECTOR, GOLDEN, IMAGE, KEY_ID, samples

from protocol import codec, dsse, messages
from protocol.manifest import parse_manifest
from protocol.messages import DESIRED_TYPE, Desired, Enrolled, Envelope, Signature

SAMPLES = samples()
PARTS = {messages.TelemetryRecord, messages.MqttEndpoint, Signature}  # stand inside other messages
each_sample = pytest.mark.parametrize("name", sorted(SAMPLES))


def golden(name: str) -> Path:
    return GOLDEN / f"{name}.json"


def read(name: str) -> bytes:
    if os.environ.get("RIMWARD_UPDATE_GOLDEN") == "1":
        golden(name).parent.mkdir(parents=True, exist_ok=True)
        golden(name).write_bytes(codec.encode(SAMPLES[name]))
    return golden(name).read_bytes()


@each_sample
def test_the_same_bytes_come_out(name: str) -> None:
    raw = read(name)

    assert codec.encode(codec.decode(raw, type(SAMPLES[name]))) == raw


@each_sample
def test_the_bytes_mean_what_they_always_did(name: str) -> None:
    assert codec.decode(read(name), type(SAMPLES[name])) == SAMPLES[name]


def test_every_message_has_a_golden_file() -> None:
    kinds = {
        kind
        for kind in vars(messages).values()
        if isinstance(kind, type)
        and issubclass(kind, msgspec.Struct)
        and kind.__module__ == messages.__name__
        and not kind.__name__.startswith("_")
    }

    assert {type(sample) for sample in SAMPLES.values()} == kinds - PARTS


def test_every_golden_file_is_read_by_a_test() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(SAMPLES)


def test_the_signature_holds_for_another_implementation() -> None:
    envelope = json.loads(read("envelope"))
    signed = msgspec.convert(envelope, Envelope, strict=False)
    kind, payload = DESIRED_TYPE.encode(), signed.payload
    message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)

    public = Ed25519PublicKey.from_public_bytes(DIRECTOR.public_key().public_bytes_raw())
    public.verify(signed.signatures[0].sig, message)  # raises when it does not hold
    assert (envelope["payloadType"], envelope["signatures"][0]["keyid"]) == (DESIRED_TYPE, KEY_ID)


def test_an_enrolled_device_can_open_its_desired_state() -> None:
    enrolled = codec.decode(read("enrolled"), Enrolled)

    payload = dsse.open_envelope(
        read("envelope"),
        DESIRED_TYPE,
        enrolled.director_keys,
        _holds,
    )

    desired = dsse.read_payload(payload, Desired)
    assert payload == read("desired")
    assert desired.device == enrolled.device == DEVICE


def test_the_manifest_inside_is_one() -> None:
    desired = codec.decode(read("desired"), Desired)

    manifest = parse_manifest(desired.manifest.encode())

    assert manifest.agent.modules["digits"].settings.image == IMAGE


def _holds(key: bytes, signature: bytes, message: bytes) -> bool:
    Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    return True
