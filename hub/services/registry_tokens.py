"""Short-lived bearer tokens of the image registry: signed claims, nothing stored.

Decides their form (a JSON Web Token with HMAC-SHA256) and how long they live. Must not decide who
gets one: callers pass what is granted.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hub.core.ports import Clock
from hub.core.registry_access import Action, Grants
from protocol.errors import Code, DeniedError
from protocol.ids import parse_repository

TTL_SECONDS = 300
SERVICE = "rimward"
_KEY_BYTES = 32
_TOKEN_LIMIT = 32 * 1024
_HEADER = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class Bearer:
    """What a valid token says."""

    subject: str
    grants: Grants


@dataclass(frozen=True, slots=True)
class RegistryTokens:
    """Mints and checks tokens.

    Args:
        key: Secret of at least 32 random bytes; every process that serves the registry has it.
        clock: Where the present comes from.
    """

    key: bytes = field(repr=False)
    clock: Clock

    def __post_init__(self) -> None:
        """Refuse a key that could be guessed."""
        if len(self.key) < _KEY_BYTES:
            raise ValueError(f"the key has fewer than {_KEY_BYTES} bytes")

    def mint(
        self, subject: str, pull: Sequence[str], ttl_seconds: int = TTL_SECONDS
    ) -> tuple[str, int]:
        """Return a token that may pull exactly these repositories, and when it expires.

        The expiry is in seconds since 1970.

        Raises:
            InvalidError: `id-invalid`, for a malformed repository.
        """
        pulling = frozenset({Action.PULL})
        return self.issue(subject, {parse_repository(name): pulling for name in pull}, ttl_seconds)

    def issue(
        self, subject: str, grants: Grants, ttl_seconds: int = TTL_SECONDS
    ) -> tuple[str, int]:
        """Return a token with these rights, and when it expires (seconds since 1970)."""
        now = int(self.clock.now().timestamp())
        expires = now + max(1, min(ttl_seconds, TTL_SECONDS))
        claims = {
            "iss": SERVICE,
            "aud": SERVICE,
            "sub": subject,
            "iat": now,
            "exp": expires,
            "jti": secrets.token_hex(8),
            "access": [
                {"type": "repository", "name": name, "actions": [a for a in Action if a in actions]}
                for name, actions in sorted(grants.items())
            ],
        }
        body = _encode(json.dumps(claims, separators=(",", ":")).encode())
        return f"{_HEADER}.{body}.{self._signature(body)}", expires

    def verify(self, token: str) -> Bearer:
        """Return what a token grants.

        Raises:
            DeniedError: `token-invalid`: forged, malformed or expired; it does not say which.
        """
        header, _, rest = token[: _TOKEN_LIMIT + 1].partition(".")
        body, _, signature = rest.partition(".")
        genuine = hmac.compare_digest(
            f"{header}.{signature}".encode("utf-8", "surrogatepass"),
            f"{_HEADER}.{self._signature(body)}".encode(),
        )
        if not genuine or len(token) > _TOKEN_LIMIT:
            raise _refused()
        try:
            claims: dict[str, Any] = json.loads(_decode(body))
        except (ValueError, binascii.Error) as error:  # signed by us, so this means another format
            raise _refused() from error
        if claims.get("aud") != SERVICE or claims["exp"] <= self.clock.now().timestamp():
            raise _refused()
        grants = {
            row["name"]: frozenset(Action(name) for name in row["actions"])
            for row in claims["access"]
        }
        return Bearer(claims["sub"], grants)

    def _signature(self, body: str) -> str:
        signed = f"{_HEADER}.{body}".encode("utf-8", "surrogatepass")
        return _encode(hmac.new(self.key, signed, hashlib.sha256).digest())


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _refused() -> DeniedError:
    return DeniedError(
        "the registry token is not valid",
        code=Code.TOKEN_INVALID,
        hint="ask for a new one; tokens live five minutes",
    )
