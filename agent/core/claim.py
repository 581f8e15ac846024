"""Reads the claim token a person hands to a device: where the hub is, whom to trust, the secret.

Decides nothing about whether the claim still holds; that is the hub's matter.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from protocol.errors import Code, InvalidError

MAX_TOKEN_CHARACTERS = 2048
_PARTS = 4
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_SECRET = re.compile(r"[A-Za-z0-9_.~+/=-]{16,256}")


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim token says.

    Attributes:
        hub_url: Base URL of the hub's HTTPS interface, without a slash at the end.
        ca_fingerprint: Hex SHA-256 of the DER of the hub's root certificate.
        secret: What the hub trades for a certificate, once.
    """

    hub_url: str
    ca_fingerprint: str
    secret: str = field(repr=False)


def parse_claim(token: str) -> Claim:
    """Return what `rw1.<url>.<fingerprint>.<secret>` says.

    White space around the token is ignored: it comes by copy and paste.

    Raises:
        InvalidError: `claim-invalid`. The message never repeats the token.
    """
    parts = token.strip().split(".", _PARTS - 1)
    if len(token) > MAX_TOKEN_CHARACTERS or len(parts) != _PARTS or parts[0] != "rw1":
        raise _refuse("does not have the form 'rw1.<url>.<fingerprint>.<secret>'")
    _, encoded_url, fingerprint, secret = parts
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise _refuse("has no SHA-256 fingerprint in its third part")
    if not _SECRET.fullmatch(secret):
        raise _refuse("has no secret in its fourth part")
    return Claim(_hub_url(encoded_url), fingerprint, secret)


def _hub_url(encoded: str) -> str:
    padded = encoded + "=" * (-len(encoded) % 4)
    try:
        url = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii").rstrip("/")
        parts = urlsplit(url)
        port = parts.port  # raises ValueError beyond 65535
    except (binascii.Error, ValueError) as error:
        raise _refuse("has no readable address in its second part") from error
    plain = not (parts.path or parts.query or parts.fragment or parts.username or parts.password)
    if parts.scheme != "https" or not parts.hostname or port == 0 or not plain:
        raise _refuse("does not name the hub as 'https://<host>:<port>'")
    return url


def _refuse(why: str) -> InvalidError:
    return InvalidError(
        f"the claim token {why}",
        code=Code.CLAIM_INVALID,
        hint="copy it whole, or ask the hub's operator for a new one: `rimward device invite`",
    )
