"""The authority with real certificates: chains, fields nobody else sets, refusals, key files."""

from __future__ import annotations

import socket
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hub_lab import DEVICE_KEY, code_of, csr, der
from tls_lab import key_pem, make_authority

from hub.adapters.clock import SystemClock
from hub.adapters.pki import (
    DEVICE_LIFE,
    ISSUER_LIFE,
    DiskAuthority,
    DiskDirector,
    write_private,
)
from protocol import dsse
from protocol.ids import DeviceId
from simulator.fakes import ManualClock

DEVICE = DeviceId("press-7")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime.now(UTC))


@pytest.fixture
def authority(tmp_path: Path, clock: ManualClock) -> DiskAuthority:
    return DiskAuthority(tmp_path / "keys", clock)


def leaf(chain: str) -> x509.Certificate:
    return x509.load_pem_x509_certificates(chain.encode())[0]


def extension(certificate: x509.Certificate, kind: type[Any]) -> Any:
    return certificate.extensions.get_extension_for_class(kind).value


def handshake(
    server: ssl.SSLContext, client: ssl.SSLContext, name: str = "hub.test"
) -> bytes | None:
    """Shake hands over a socket pair; return what the server saw of the client."""
    ours, theirs = socket.socketpair()
    seen: list[bytes | None] = []
    errors: list[Exception] = []

    def serve() -> None:
        try:
            with server.wrap_socket(theirs, server_side=True) as tls:
                seen.append(tls.getpeercert(binary_form=True))
                tls.sendall(b"x")
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=name) as tls:
            assert tls.recv(1) == b"x"
    finally:
        ours.close()
        thread.join()
        theirs.close()
    return seen[0]


def client_context(authority: DiskAuthority, credential: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.roots_pem())
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if credential:
        context.load_cert_chain(credential)
    return context


def credential(folder: Path, chain: str) -> Path:
    path = folder / "device.pem"
    path.write_text(_private() + chain)
    return path


def _private() -> str:
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - only here
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    return DEVICE_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def test_hub_and_device_verify_each_other_strictly(tmp_path: Path) -> None:
    authority = DiskAuthority(tmp_path / "keys", SystemClock())
    server = authority.server_context(["hub.test", "127.0.0.1"], require_client=True)
    server.verify_flags |= ssl.VERIFY_X509_STRICT
    chain = authority.issue(csr(), DEVICE)

    for name in ("hub.test", "127.0.0.1"):
        seen = handshake(server, client_context(authority, credential(tmp_path, chain)), name)
        assert seen is not None
        assert authority.identify(seen) == DEVICE


def test_another_name_or_another_root_is_not_trusted(tmp_path: Path) -> None:
    authority = DiskAuthority(tmp_path / "keys", SystemClock())
    other = DiskAuthority(tmp_path / "other", SystemClock())
    server = authority.server_context(["hub.test"], require_client=False)

    assert handshake(server, client_context(authority)) is None
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, client_context(authority), "elsewhere.test")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, client_context(other))


def test_a_client_certificate_is_insisted_on_and_must_be_ours(tmp_path: Path) -> None:
    authority = DiskAuthority(tmp_path / "keys", SystemClock())
    server = authority.server_context(["hub.test"], require_client=True)
    foreign = tmp_path / "foreign.pem"
    foreign.write_text(key_pem() + make_authority().issue("press-7"))

    for shown in (None, foreign):
        with pytest.raises((OSError, AssertionError)):
            handshake(server, client_context(authority, shown))


def test_nothing_of_the_request_but_the_key_is_signed(
    authority: DiskAuthority, clock: ManualClock
) -> None:
    wishes = [
        x509.BasicConstraints(ca=True, path_length=None),
        x509.SubjectAlternativeName([x509.DNSName("hub.test")]),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
    ]
    certificate = leaf(authority.issue(csr(name="rimward.hub", extensions=wishes), DEVICE))

    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert [name.value for name in names] == ["press-7"]
    assert certificate.public_key() == DEVICE_KEY.public_key()
    assert extension(certificate, x509.BasicConstraints) == x509.BasicConstraints(
        ca=False, path_length=None
    )
    assert list(extension(certificate, x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert list(extension(certificate, x509.SubjectAlternativeName)) == [
        x509.UniformResourceIdentifier("urn:rimward:device:press-7")
    ]
    end = clock.now() + DEVICE_LIFE
    assert abs(certificate.not_valid_after_utc - end) < timedelta(seconds=1)


@pytest.mark.parametrize(
    "request_pem",
    [
        "",
        "rubbish",
        "\ud800",
        csr().replace("MI", "MJ", 1),
        csr(rsa.generate_private_key(65537, 2048)),
        csr(ec.generate_private_key(ec.SECP384R1())),
        csr(ec.generate_private_key(ec.SECP256K1())),
        csr(ed25519.Ed25519PrivateKey.generate()),
        csr(dsa.generate_private_key(1024)),  # noqa: S505 - weak on purpose
    ],
)
def test_other_requests_and_other_keys_are_refused(
    authority: DiskAuthority, request_pem: str
) -> None:
    assert code_of(lambda: authority.issue(request_pem, DEVICE)) == "request-invalid"


def test_a_request_signed_by_another_key_is_refused(authority: DiskAuthority) -> None:
    import base64  # noqa: PLC0415 - only here

    lines = csr().strip().splitlines()
    raw = bytearray(base64.b64decode("".join(lines[1:-1])))
    raw[-1] ^= 1
    forged = "\n".join([lines[0], base64.b64encode(raw).decode(), lines[-1], ""])

    assert code_of(lambda: authority.issue(forged, DEVICE)) == "request-invalid"


def test_a_certificate_is_good_for_its_week(authority: DiskAuthority, clock: ManualClock) -> None:
    certificate = der(authority.issue(csr(), DEVICE))

    assert authority.identify(certificate) == DEVICE
    clock.advance(DEVICE_LIFE.total_seconds() - 1)
    assert authority.identify(certificate) == DEVICE
    clock.advance(2)
    assert code_of(lambda: authority.identify(certificate)) == "certificate-invalid"


def test_a_certificate_from_the_future_is_refused(
    authority: DiskAuthority, clock: ManualClock
) -> None:
    certificate = der(authority.issue(csr(), DEVICE))
    clock.advance(-3600)

    assert code_of(lambda: authority.identify(certificate)) == "certificate-invalid"


def test_what_is_not_a_device_certificate_of_ours_names_nobody(
    authority: DiskAuthority, clock: ManualClock, tmp_path: Path
) -> None:
    foreign = DiskAuthority(tmp_path / "foreign", clock)
    server, _ = authority.server_files(["hub.test"])
    good = der(authority.issue(csr(), DEVICE))
    others = [
        b"",
        b"\0" * 1000,
        good[:-1],
        good[:-1] + bytes([good[-1] ^ 1]),
        der(foreign.issue(csr(), DEVICE)),
        der(make_authority("Rimward issuer").issue("press-7")),
        der(server.read_text()),
        der((tmp_path / "keys" / "issuer.pem").read_text()),
        der(authority.roots_pem()),
    ]

    for certificate in others:
        refused = code_of(lambda shown=certificate: authority.identify(shown))  # type: ignore[misc]  # bound now
        assert refused == "certificate-invalid"


def test_keys_are_for_their_owner_only(authority: DiskAuthority, tmp_path: Path) -> None:
    authority.server_files(["hub.test"])
    DiskDirector(tmp_path / "keys")

    folder = tmp_path / "keys"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    keys = sorted(path.name for path in folder.glob("*.key"))
    assert keys == ["director.key", "issuer.key", "root.key", "server.key"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_a_left_over_does_not_lend_its_permissions(tmp_path: Path) -> None:
    left_over = tmp_path / "secret.key.new"
    left_over.write_bytes(b"old")
    left_over.chmod(0o644)

    write_private(tmp_path / "secret.key", b"new")

    assert (tmp_path / "secret.key").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "secret.key").stat().st_mode) == 0o600
    assert not left_over.exists()


def test_a_restart_finds_the_same_keys(
    authority: DiskAuthority, clock: ManualClock, tmp_path: Path
) -> None:
    certificate = der(authority.issue(csr(), DEVICE))
    again = DiskAuthority(tmp_path / "keys", clock)

    assert again.fingerprint == authority.fingerprint
    assert again.identify(certificate) == DEVICE


def test_the_issuer_outlives_its_year_and_what_it_signed_stays_good(
    authority: DiskAuthority, clock: ManualClock
) -> None:
    for _ in range(60):
        chain = authority.issue(csr(), DEVICE)
        clock.advance(DEVICE_LIFE.total_seconds() - 1)
        assert authority.identify(der(chain)) == DEVICE
    now = clock.now()

    issuer = x509.load_pem_x509_certificates(authority.issue(csr(), DEVICE).encode())[1]
    assert issuer.not_valid_after_utc >= now + ISSUER_LIFE / 2 - timedelta(seconds=1)
    root = x509.load_pem_x509_certificate(authority.roots_pem().encode())
    issuer.verify_directly_issued_by(root)


def test_the_director_signs_with_one_key_for_ever(tmp_path: Path) -> None:
    first = DiskDirector(tmp_path)
    envelope = first.seal("kind", b"payload")

    def holds(key: bytes, signature: bytes, message: bytes) -> bool:
        ed25519.Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
        return True

    keys = DiskDirector(tmp_path).public_keys()
    assert keys == first.public_keys()
    assert dsse.open_envelope(envelope, "kind", keys, holds) == b"payload"


def test_a_key_of_another_kind_is_not_used(tmp_path: Path) -> None:
    write_private(tmp_path / "director.key", _private().encode())

    with pytest.raises(TypeError):
        DiskDirector(tmp_path)
