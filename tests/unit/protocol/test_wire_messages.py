"""Messages: names and forms on the wire, which no change may break."""

from __future__ import annotations

import msgspec
import pytest

from protocol import codec
from protocol.messages import (
    Credential,
    Desired,
    Enrolled,
    EnrollRequest,
    MqttEndpoint,
    Problem,
    Signature,
    Telemetry,
    TelemetryRecord,
)


def test_fields_are_camel_case_on_the_wire() -> None:
    request = EnrollRequest(claim="c", csr="s", profile="p", agent_version="1")

    assert codec.encode(request) == b'{"claim":"c","csr":"s","profile":"p","agentVersion":"1"}'


def test_bodies_are_base64_on_the_wire() -> None:
    record = TelemetryRecord(seq=1, module="m", output="o", at=2, body=b"\xff\x00")

    assert b'"body":"/wA="' in codec.encode(Telemetry("e", [record]))


def test_keys_are_base64_on_the_wire() -> None:
    enrolled = Enrolled("d", "c", "ca", {"k": b"\x01\x02"}, MqttEndpoint("h", 1), "")

    assert b'"directorKeys":{"k":"AQI="}' in codec.encode(enrolled)


def test_what_may_be_left_out_has_a_default() -> None:
    assert codec.decode(b'{"kind":"anonymous"}', Credential) == Credential("anonymous")
    assert codec.decode(b'{"code":"busy","message":"m"}', Problem).hint == ""


@pytest.mark.parametrize("field", ["epoch", "version"])
def test_desired_states_count_from_one(field: str) -> None:
    desired = Desired("d", 1, 1, 0, 0, "", "{}")
    raw = codec.encode(desired).replace(b'"%b":1' % field.encode(), b'"%b":0' % field.encode())

    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(raw, type=Desired)


def test_messages_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Signature("k", b"").keyid = "other"  # type: ignore[misc]  # the point of the test
