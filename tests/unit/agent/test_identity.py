from __future__ import annotations

import asyncio
import base64
import ssl
import stat
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from tls_lab import DAY, Authority, make_authority

from agent.adapters.identity import certificate_validity, enroll, load_identity, renew
from agent.core.claim import Claim
from agent.core.ports import Identity
from protocol.errors import Code, DeniedError, FleetError
from protocol.ids import ImageRef
from protocol.messages import Credential, Enrolled, EnrollRequest, MqttEndpoint

HUB_URL = "https://127.0.0.1:8443"
SECRET = "0123456789abcdef"


class Hub:
    """Signs keys as a hub does; `answer` lets a test bend what it says."""

    def __init__(self) -> None:
        self.authority = make_authority()
        self.requests: list[EnrollRequest] = []
        self.claims: list[Claim] = []
        self.changes: dict[str, object] = {}
        self.name = "press-7"

    async def open(self, claim: Claim) -> Hub:
        self.claims.append(claim)
        return self

    async def enroll(self, request: EnrollRequest) -> Enrolled:
        self.requests.append(request)
        enrolled = Enrolled(
            device=self.name,
            certificate=self.sign(request.csr),
            ca=self.authority.pem,
            director_keys={"k1": b"k" * 32},
            mqtt=MqttEndpoint("127.0.0.1", 8883),
            registry="",
        )
        return msgspec.structs.replace(enrolled, **self.changes)

    async def credential(self, image: ImageRef) -> Credential:
        raise DeniedError(f"no {image}", code=Code.FORBIDDEN)

    async def renew(self, csr_pem: str) -> str:
        return self.sign(csr_pem)

    def sign(self, csr_pem: str) -> str:
        key = x509.load_pem_x509_csr(csr_pem.encode()).public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        return self.authority.issue(self.name, public_key=key, valid=(-DAY, 6 * DAY))

    def token(self) -> str:
        url = base64.urlsafe_b64encode(HUB_URL.encode()).decode().rstrip("=")
        return f"rw1.{url}.{self.authority.fingerprint}.{SECRET}"


def enrol(hub: Hub, home: Path) -> Identity:
    return asyncio.run(
        enroll(hub.token(), home, "generic-x86", agent_version="1.2.3", open_hub=hub.open)
    )


def code_of(home: Path) -> Code | None:
    try:
        load_identity(home)
    except FleetError as error:
        return error.code
    return None


def test_what_was_enrolled_is_loaded_again(tmp_path: Path) -> None:
    enrolled = enrol(Hub(), tmp_path)

    loaded, _ = load_identity(tmp_path)

    assert loaded == enrolled
    assert (loaded.device, loaded.hub_url) == ("press-7", HUB_URL)


def test_the_hub_hears_the_secret_profile_and_version_and_no_key(tmp_path: Path) -> None:
    hub = Hub()
    enrol(hub, tmp_path)

    [request] = hub.requests

    assert (request.claim, request.profile, request.agent_version) == (
        SECRET,
        "generic-x86",
        "1.2.3",
    )
    assert "PRIVATE" not in request.csr


def test_key_and_folder_are_for_the_agent_alone(tmp_path: Path) -> None:
    enrol(Hub(), tmp_path)

    folder = tmp_path / "identity"
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert modes == {0o600}


def test_the_key_is_of_the_curve_p256(tmp_path: Path) -> None:
    enrol(Hub(), tmp_path)

    key = load_pem_private_key((tmp_path / "identity/credential.pem").read_bytes(), None)

    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp256r1"


def test_a_second_enrolment_is_refused_before_the_hub_is_asked(tmp_path: Path) -> None:
    hub = Hub()
    enrol(hub, tmp_path)

    with pytest.raises(FleetError) as caught:
        enrol(hub, tmp_path)

    assert caught.value.code is Code.ALREADY_ENROLLED
    assert "identity" in (caught.value.hint or "")
    assert len(hub.claims) == 1


def test_without_an_enrolment_the_hint_says_how(tmp_path: Path) -> None:
    with pytest.raises(FleetError) as caught:
        load_identity(tmp_path)

    assert caught.value.code is Code.NOT_ENROLLED
    assert "rimward-agent enroll --claim" in (caught.value.hint or "")


def foreign(authority: Authority) -> str:
    return authority.issue(
        "press-7", public_key=ec.generate_private_key(ec.SECP256R1()).public_key()
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"certificate": "rubbish"},
        {"certificate": foreign(make_authority())},
        {"device": "press-8"},
        {"ca": make_authority().pem},
        {"ca": ""},
        {"director_keys": {}},
        {"director_keys": {"k1": b"short"}},
    ],
)
def test_an_answer_that_does_not_fit_leaves_no_identity(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    hub = Hub()
    hub.changes = changes

    with pytest.raises(FleetError) as caught:
        enrol(hub, tmp_path)

    assert (caught.value.code, code_of(tmp_path)) == (Code.CERTIFICATE_INVALID, Code.NOT_ENROLLED)


def test_a_device_whose_enrolment_was_cut_short_may_enrol_again(tmp_path: Path) -> None:
    hub = Hub()
    enrol(hub, tmp_path)
    (tmp_path / "identity/enrolled.json").unlink()  # the last file that is written

    enrol(hub, tmp_path)

    assert code_of(tmp_path) is None


@pytest.mark.parametrize("name", ["credential.pem", "ca.pem", "enrolled.json"])
@pytest.mark.parametrize("damage", ["empty", "half", "rubbish"])
def test_damaged_files_have_an_error_with_a_hint(tmp_path: Path, name: str, damage: str) -> None:
    enrol(Hub(), tmp_path)
    path = tmp_path / "identity" / name
    content = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "half": content[: len(content) // 2], "rubbish": b"\xff\x00"}[damage]
    )

    assert code_of(tmp_path) is Code.CERTIFICATE_INVALID


@pytest.mark.parametrize("name", ["credential.pem", "ca.pem"])
def test_a_missing_file_has_an_error_with_a_hint(tmp_path: Path, name: str) -> None:
    enrol(Hub(), tmp_path)
    (tmp_path / "identity" / name).unlink()

    assert code_of(tmp_path) is Code.CERTIFICATE_INVALID


def test_a_renewal_brings_a_new_key_that_the_next_context_shows(tmp_path: Path) -> None:
    hub = Hub()
    old = enrol(hub, tmp_path)
    before = (tmp_path / "identity/credential.pem").read_bytes()

    renewed = asyncio.run(renew(tmp_path, old, hub))

    loaded, make_context = load_identity(tmp_path)
    after = (tmp_path / "identity/credential.pem").read_bytes()
    assert loaded == renewed
    assert renewed.enrolled.certificate != old.enrolled.certificate
    assert after.split(b"-----END")[0] != before.split(b"-----END")[0]
    assert isinstance(make_context(), ssl.SSLContext)


def test_a_certificate_for_another_key_leaves_the_old_pair(tmp_path: Path) -> None:
    hub = Hub()
    old = enrol(hub, tmp_path)
    before = (tmp_path / "identity/credential.pem").read_bytes()
    hub.name = "press-8"

    with pytest.raises(FleetError) as caught:
        asyncio.run(renew(tmp_path, old, hub))

    assert caught.value.code is Code.CERTIFICATE_INVALID
    assert (tmp_path / "identity/credential.pem").read_bytes() == before


def test_the_validity_is_the_leafs(tmp_path: Path) -> None:
    identity = enrol(Hub(), tmp_path)

    begin, end = certificate_validity(identity.enrolled.certificate)

    assert end - begin == timedelta(days=7)
