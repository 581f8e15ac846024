"""Devices: invitations, enrolment, trust, tags, retirement; nothing half-done after an error."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hub_lab import Lab, code_of, csr, der, make_lab
from structlog.testing import capture_logs

from hub.core.device import DeviceState
from protocol.errors import FleetError
from protocol.ids import DeviceId
from protocol.messages import EnrollRequest

HOUR = timedelta(hours=1)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return make_lab(tmp_path)


def secret(claim: str) -> str:
    return claim.split(".")[3]


def request(token: str, **other: Any) -> EnrollRequest:
    fields = {"claim": secret(token), "csr": csr(), "profile": "generic-x86", "agent_version": "1"}
    return EnrollRequest(**(fields | other))


def invite(lab: Lab, device: str = "press-7", **tags: Any) -> str:
    return lab.services.devices.invite(device, tags=tags, life=HOUR)


def test_an_invited_device_enrols_and_gets_everything_it_keeps(lab: Lab) -> None:
    with capture_logs() as logs:
        enrolled = lab.services.devices.enroll(request(invite(lab, site="plant-7")))

    device = lab.services.devices.get("press-7")
    assert (device.profile, device.tags, device.state) == (
        "generic-x86",
        {"site": "plant-7"},
        DeviceState.ENROLLED,
    )
    assert enrolled.device == lab.services.devices.authenticate(der(enrolled.certificate))
    assert enrolled.ca == lab.authority.roots_pem()
    assert enrolled.director_keys == lab.director.public_keys()
    assert (enrolled.mqtt.port, enrolled.registry) == (8883, "hub.test:8443")
    assert [each["event"] for each in logs] == ["device.invited", "device.enrolled"]
    assert secret(invite(lab, "other")) not in str(logs)


def test_tags_of_an_invitation_hold_no_nulls(lab: Lab) -> None:
    lab.services.devices.enroll(request(invite(lab, gone=None, deep={"gone": None, "a": 1})))

    assert lab.services.devices.get("press-7").tags == {"deep": {"a": 1}}


@pytest.mark.parametrize(
    ("device", "tags", "life", "code"),
    [
        ("Press 7", {}, HOUR, "id-invalid"),
        ("a/b", {}, HOUR, "id-invalid"),
        ("press-7", {"a.b": 1}, HOUR, "twin-invalid"),
        ("press-7", {"a": "\ud800"}, HOUR, "twin-invalid"),
        ("press-7", {"a": float("nan")}, HOUR, "twin-invalid"),
        ("press-7", {}, timedelta(0), "request-invalid"),
        ("press-7", {}, timedelta(days=31), "request-invalid"),
    ],
)
def test_bad_invitations_are_refused(
    lab: Lab, device: str, tags: dict[str, Any], life: timedelta, code: str
) -> None:
    assert code_of(lambda: lab.services.devices.invite(device, tags=tags, life=life)) == code


def test_an_enrolled_device_is_not_invited_again(lab: Lab) -> None:
    lab.enroll("press-7")

    assert code_of(lambda: invite(lab)) == "device-exists"


@pytest.mark.parametrize(
    ("other", "code"),
    [
        ({"claim": "wrong"}, "claim-invalid"),
        ({"profile": "toaster"}, "profile-unknown"),
        ({"csr": "rubbish"}, "request-invalid"),
    ],
)
def test_a_refused_enrolment_leaves_the_claim_good(
    lab: Lab, other: dict[str, str], code: str
) -> None:
    claim = invite(lab)

    assert code_of(lambda: lab.services.devices.enroll(request(claim, **other))) == code
    assert lab.services.devices.list() == []
    assert lab.services.devices.enroll(request(claim)).device == "press-7"


def test_a_claim_works_once_and_for_its_time(lab: Lab) -> None:
    used, late = invite(lab), invite(lab, "late")
    lab.services.devices.enroll(request(used))
    lab.clock.advance(3600)  # type: ignore[attr-defined]  # the clock of tests

    assert code_of(lambda: lab.services.devices.enroll(request(used))) == "claim-invalid"
    assert code_of(lambda: lab.services.devices.enroll(request(late))) == "claim-invalid"


def test_two_claims_for_one_id_enrol_one_device(lab: Lab) -> None:
    first, second = invite(lab), invite(lab)
    lab.services.devices.enroll(request(first))

    assert code_of(lambda: lab.services.devices.enroll(request(second))) == "device-exists"


def test_strangers_do_not_take_the_database_from_writers(lab: Lab) -> None:
    with lab.store.begin():
        assert code_of(lambda: lab.services.devices.enroll(request("x.x.x.x"))) == "claim-invalid"


def test_a_device_gets_its_certificate_although_it_could_not_be_enlisted(tmp_path: Path) -> None:
    lab = make_lab(tmp_path)

    def busy(_device: DeviceId) -> None:
        with lab.store.begin(), lab.store.begin():
            pass

    object.__setattr__(lab.services.devices, "changed", busy)
    with capture_logs() as logs:
        enrolled = lab.services.devices.enroll(request(invite(lab)))

    assert enrolled.device == "press-7"
    assert [each["event"] for each in logs][-1] == "device.not_enlisted"


def test_an_unknown_or_retired_device_is_not_authenticated(lab: Lab) -> None:
    stranger = der(lab.authority.issue(csr(), DeviceId("stranger")))
    retired = der(lab.enroll("press-7").certificate)
    lab.services.devices.retire("press-7")

    for certificate in (stranger, retired, b"rubbish"):
        refused = code_of(lambda shown=certificate: lab.services.devices.authenticate(shown))  # type: ignore[misc]  # bound now
        assert refused == "certificate-invalid"


def test_renewal_is_for_the_trusted(lab: Lab) -> None:
    lab.enroll("press-7")
    device = DeviceId("press-7")

    assert lab.services.devices.authenticate(der(lab.services.devices.renew(device, csr()))) == (
        "press-7"
    )
    assert code_of(lambda: lab.services.devices.renew(device, "rubbish")) == "request-invalid"
    lab.services.devices.retire("press-7")
    assert code_of(lambda: lab.services.devices.renew(device, csr())) == "certificate-invalid"


def test_tags_are_merged_and_null_removes(lab: Lab) -> None:
    lab.enroll("press-7", site="a", floor=1)
    lab.services.devices.set_tags("press-7", {"site": "b", "floor": None})

    assert lab.services.devices.get("press-7").tags == {"site": "b"}
    assert code_of(lambda: lab.services.devices.set_tags("x", {})) == "device-unknown"
    assert code_of(lambda: lab.services.devices.set_tags("press-7", {"$": 1})) == "twin-invalid"


def test_retiring_cuts_off_and_frees_the_id(lab: Lab) -> None:
    lab.enroll("press-7")
    with capture_logs() as logs:
        lab.services.devices.retire("press-7")
        lab.services.devices.retire("press-7")

    assert lab.revoked == ["press-7", "press-7"]
    assert logs[0] == {"event": "device.retired", "log_level": "info", "device": "press-7"}
    assert lab.enroll("press-7").device == "press-7"
    assert code_of(lambda: lab.services.devices.retire("nobody")) == "device-unknown"


def test_lists_are_paged_in_order_of_id(lab: Lab) -> None:
    for name in ("c", "a", "b"):
        lab.enroll(name)

    assert [d.id for d in lab.services.devices.list(limit=2)] == ["a", "b"]
    assert [d.id for d in lab.services.devices.list(after="b")] == ["c"]
    with pytest.raises(FleetError):
        lab.services.devices.get("../etc")
