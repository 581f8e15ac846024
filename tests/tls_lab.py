"""A certificate authority for tests of the agent: servers and devices, good and bad."""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)
# One for the whole run: what is tested is never the key.
KEY = ec.generate_private_key(ec.SECP256R1())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@dataclass(frozen=True)
class Authority:
    """A root with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.certificate.public_bytes(Encoding.DER)).hexdigest()

    def issue(
        self,
        name: str,
        *,
        public_key: ec.EllipticCurvePublicKey | None = None,
        hosts: tuple[str, ...] = (),
        addresses: tuple[str, ...] = ("127.0.0.1",),
        valid: tuple[timedelta, timedelta] = (-DAY, DAY),
    ) -> str:
        """Return a certificate as PEM; for KEY when no other key is given."""
        now = datetime.now(UTC)
        alternatives = [x509.DNSName(host) for host in hosts]
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(self.certificate.subject)
            .public_key(public_key or KEY.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + valid[0])
            .not_valid_after(now + valid[1])
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName(
                    [*alternatives, *(x509.IPAddress(ip_address(item)) for item in addresses)]
                ),
                critical=False,
            )
        )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()

    def credential(
        self, folder: Path, name: str, *, valid: tuple[timedelta, timedelta] = (-DAY, DAY)
    ) -> Path:
        """Write key and certificate of `name` into one file, as the agent keeps them."""
        path = folder / f"{name}.pem"
        path.write_text(key_pem() + self.issue(name, valid=valid))
        return path

    def server_context(self, credential: Path, *, client_certificates: bool) -> ssl.SSLContext:
        """Return a server's context; with `client_certificates` it insists on ours."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(credential)
        if client_certificates:
            context.load_verify_locations(cadata=self.pem)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def make_authority(name: str = "test root") -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 10 * DAY)
        .not_valid_after(now + 10 * DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    )
    return Authority(builder.sign(key, hashes.SHA256()), key)


def key_pem() -> str:
    return KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
