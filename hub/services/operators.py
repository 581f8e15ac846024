"""People and their access tokens."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta

import structlog

from hub.core.device import Token, hash_secret
from hub.core.ports import Clock, Store
from protocol.errors import Code, DeniedError

LIFE = timedelta(days=365)
PREFIX = "rwo_"
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class OperatorService:
    """Use cases around operators' tokens."""

    store: Store
    clock: Clock

    def issue(self, name: str, *, role: str = "admin") -> str:
        """Return a new token; it is shown only here, the hub keeps its hash.

        The name's older tokens are worth nothing from then on.
        """
        secret = PREFIX + secrets.token_urlsafe(32)
        now = self.clock.now()
        with self.store.begin() as work:
            work.tokens.forget(name)
            work.tokens.put(Token(hash_secret(secret), name, role, now, now + LIFE))
            work.commit()
        log.info("token.issued", name=name, role=role)
        return secret

    def authenticate(self, secret: str) -> Token:
        """Return whose token this is, or raise DeniedError (`token-invalid`)."""
        found = None
        if secret.startswith(PREFIX):
            with self.store.begin(write=False) as work:
                found = work.tokens.get(hash_secret(secret))
        if found is None or self.clock.now() >= found.expires_at:
            raise DeniedError(
                "the access token is missing, wrong or expired",
                code=Code.TOKEN_INVALID,
                hint="the hub wrote one into `admin.json` in its data folder at its first start",
            )
        return found
