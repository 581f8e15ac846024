"""The hub's certificate authority and its signing keys, on disk.

A root that devices pin (10 years), an issuing certificate under it (1 year) that signs devices
(7 days) and the hub's own server. Keys are files of mode 0600 in a folder of mode 0700; `make demo`
and `rimward hub up` make them on first start.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hub.adapters.blobs import disk_errors
from hub.core.ports import Clock
from protocol import dsse
from protocol.errors import Code, DeniedError, InvalidError
from protocol.ids import DeviceId, parse_device_id

ROOT_LIFE = timedelta(days=3650)
ISSUER_LIFE = timedelta(days=365)
DEVICE_LIFE = timedelta(days=7)
_SKEW = timedelta(minutes=5)  # clocks of devices run behind


def write_private(path: Path, data: bytes) -> None:
    """Write a file only its owner can read, whole or not at all; `disk-full` without space."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_suffix(path.suffix + ".new")
    temporary.unlink(missing_ok=True)  # a left-over may be readable for others
    with disk_errors():
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # a key that devices pin must not be lost with the power
    finally:
        os.close(folder)


def _pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


@dataclass(frozen=True, slots=True)
class _Signer:
    """A certificate and the key behind it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def load(cls, folder: Path, name: str) -> _Signer:
        certificate = x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())
        key = serialization.load_pem_private_key((folder / f"{name}.key").read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{name}.key is not an EC key")
        return cls(certificate, key)

    def save(self, folder: Path, name: str) -> None:
        write_private(folder / f"{name}.key", _pem(self.key))
        write_private(folder / f"{name}.pem", self.pem())

    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def _authority_certificate(
    subject: str, key: ec.EllipticCurvePrivateKey, signer: _Signer | None, now: datetime
) -> x509.Certificate:
    """Return a CA certificate: self-signed without `signer`, else path length 0 below it."""
    issuer = signer.certificate.subject if signer else _name(subject)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + (ISSUER_LIFE if signer else ROOT_LIFE))
        .add_extension(
            x509.BasicConstraints(ca=True, path_length=0 if signer else 1), critical=True
        )
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if signer:
        builder = builder.add_extension(_authority_id(signer), critical=False)
    return builder.sign(signer.key if signer else key, hashes.SHA256())


def _authority_id(signer: _Signer) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key())


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _leaf(
    public_key: ec.EllipticCurvePublicKey,
    subject: str,
    names: Sequence[x509.GeneralName],
    signer: _Signer,
    validity: tuple[datetime, datetime],
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(signer.certificate.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity[0])
        .not_valid_after(validity[1])
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(_authority_id(signer), critical=False)
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


class DiskAuthority:
    """The certificate authority (port Authority), made in `folder` when it is not there yet."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._clock = clock
        if not (folder / "issuer.pem").exists():
            self._make(folder, clock.now())
        self._root = _Signer.load(folder, "root")
        self._issuer = _Signer.load(folder, "issuer")
        self._folder = folder
        self._serving: list[tuple[ssl.SSLContext, tuple[str, ...]]] = []
        self._renew_issuer()

    def _renew_issuer(self) -> None:
        """Certify the issuing key anew when half its time is over.

        The key stays, so what it signed stays valid; two threads doing this at once do no harm.
        """
        now, old = self._clock.now(), self._issuer
        if now < old.certificate.not_valid_after_utc - ISSUER_LIFE / 2:
            return
        certificate = _authority_certificate("Rimward issuer", old.key, self._root, now)
        write_private(self._folder / "issuer.pem", _Signer(certificate, old.key).pem())
        self._issuer = _Signer(certificate, old.key)

    @staticmethod
    def _make(folder: Path, now: datetime) -> None:
        root_key = ec.generate_private_key(ec.SECP256R1())
        root = _Signer(_authority_certificate("Rimward root", root_key, None, now), root_key)
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = _Signer(_authority_certificate("Rimward issuer", key, root, now), key)
        root.save(folder, "root")
        issuer.save(folder, "issuer")

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the root's DER: what claim tokens carry."""
        der = self._root.certificate.public_bytes(serialization.Encoding.DER)
        return hashlib.sha256(der).hexdigest()

    def roots_pem(self) -> str:
        """Return the root certificate in PEM."""
        return self._root.pem().decode()

    def issue(self, csr_pem: str, device: DeviceId) -> str:
        """Sign the key of a certificate request for `device`; the rest of it is ignored.

        Raises:
            InvalidError: `request-invalid`, for a request that does not parse or verify, or a key
                that is not EC P-256.
        """
        public_key = _requested_key(csr_pem)
        self._renew_issuer()
        names = [x509.UniformResourceIdentifier(f"urn:rimward:device:{device}")]
        now = self._clock.now()
        validity = (now - _SKEW, now + DEVICE_LIFE)
        builder = _leaf(public_key, device, names, self._issuer, validity).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=True
        )
        return self._chain(builder)

    def _chain(self, builder: x509.CertificateBuilder) -> str:
        leaf = builder.sign(self._issuer.key, hashes.SHA256())
        return (leaf.public_bytes(serialization.Encoding.PEM) + self._issuer.pem()).decode()

    def identify(self, certificate_der: bytes) -> DeviceId:
        """Return whose certificate this is, or raise DeniedError (`certificate-invalid`)."""
        try:
            certificate = x509.load_der_x509_certificate(certificate_der)
            certificate.verify_directly_issued_by(self._issuer.certificate)
            usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
            common_name = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
            device = parse_device_id(str(common_name))
        except (
            ValueError,
            TypeError,
            IndexError,
            InvalidSignature,
            UnsupportedAlgorithm,
            x509.ExtensionNotFound,
        ) as error:
            raise _denied("is not one of this hub's") from error
        except InvalidError as error:
            raise _denied("names no device") from error
        now = self._clock.now()
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise _denied("has expired or is not valid yet")
        if ExtendedKeyUsageOID.CLIENT_AUTH not in usages:
            raise _denied("is not a device's")
        return device

    def issued_at(self, certificate_der: bytes) -> datetime:
        """Return when a device's certificate was issued, in whole seconds, UTC."""
        return x509.load_der_x509_certificate(certificate_der).not_valid_before_utc + _SKEW

    def server_files(self, hosts: Sequence[str]) -> tuple[Path, Path]:
        """Return (chain, key) files for the hub's listeners, made anew at every start."""
        return self.issue_server("server", hosts)

    def issue_server(self, name: str, hosts: Sequence[str]) -> tuple[Path, Path]:
        """Make `name.pem` and `name.key` for a TLS server at `hosts`, good as a client too."""
        self._renew_issuer()
        key = ec.generate_private_key(ec.SECP256R1())
        now = self._clock.now()
        names = [_general_name(host) for host in hosts] or [x509.DNSName(f"rimward.{name}")]
        validity = (now - _SKEW, self._issuer.certificate.not_valid_after_utc)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = _leaf(key.public_key(), f"rimward.{name}", names, self._issuer, validity)
        chain = self._chain(builder.add_extension(x509.ExtendedKeyUsage(usages), critical=True))
        write_private(self._folder / f"{name}.key", _pem(key))
        write_private(self._folder / f"{name}.pem", chain.encode())
        return self._folder / f"{name}.pem", self._folder / f"{name}.key"

    def server_context(self, hosts: Sequence[str], *, require_client: bool) -> ssl.SSLContext:
        """Return a TLS 1.2+ server context that verifies client certificates against the root."""
        chain, key = self.server_files(hosts)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(chain, key)
        context.load_verify_locations(cadata=self.roots_pem())
        context.verify_mode = ssl.CERT_REQUIRED if require_client else ssl.CERT_OPTIONAL
        context.num_tickets = 0  # devices never resume, and tickets cost a quarter of a handshake
        self._serving.append((context, tuple(hosts)))
        return context

    def renew_servers(self) -> None:
        """Give every server context a new certificate; connections made from now on show it."""
        for context, hosts in self._serving:
            context.load_cert_chain(*self.server_files(hosts))

    def client_context(self, name: str) -> ssl.SSLContext:
        """Return a TLS client context with a certificate of our own, for an external broker."""
        chain, key = self.issue_server(name, [])
        context = ssl.create_default_context(cadata=self.roots_pem())
        context.load_cert_chain(chain, key)
        return context


def _requested_key(csr_pem: str) -> ec.EllipticCurvePublicKey:
    try:
        csr = x509.load_pem_x509_csr(csr_pem.encode())
        valid, key = csr.is_signature_valid, csr.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _bad_request(f"cannot be read: {error}") from error
    if not valid:
        raise _bad_request("is not signed by its own key")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _bad_request("has a key that is not EC P-256")
    return key


def _bad_request(problem: str) -> InvalidError:
    return InvalidError(
        f"the certificate request {problem}",
        code=Code.REQUEST_INVALID,
        hint="make it with `rimward-agent enroll`",
    )


def _denied(problem: str) -> DeniedError:
    return DeniedError(
        f"the certificate {problem}",
        code=Code.CERTIFICATE_INVALID,
        hint="enrol the device again: `rimward device invite`",
    )


class DiskDirector:
    """The Ed25519 key that signs desired states (port Director)."""

    def __init__(self, folder: Path) -> None:
        path = folder / "director.key"
        if not path.exists():
            write_private(path, _pem(ed25519.Ed25519PrivateKey.generate()))
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise TypeError(f"{path} is not an Ed25519 key")
        self._key = key
        self._public = key.public_key().public_bytes_raw()
        self._id = hashlib.sha256(self._public).hexdigest()[:16]

    def public_keys(self) -> dict[str, bytes]:
        """Return the public key by its id."""
        return {self._id: self._public}

    def seal(self, payload_type: str, payload: bytes) -> bytes:
        """Return a signed envelope."""
        return dsse.seal(payload_type, payload, self._id, self._key.sign)
