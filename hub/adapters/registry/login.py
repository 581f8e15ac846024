"""Credentials for somebody else's registry: reads its challenge, fetches and keeps tokens.

Decides what is sent to whom: a password goes only to the registry itself or to the token service
it names over HTTPS.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from protocol.errors import Code, DeniedError, InvalidError

_PART = re.compile(r'(?P<key>[a-zA-Z_]+)="(?P<value>[^"\\]*)"')
_TOKEN_LIMIT = 64 * 1024


@dataclass(frozen=True, slots=True)
class Login:
    """A user name and a password; empty for an anonymous visitor."""

    username: str = ""
    password: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of an `Authorization` header."""
        raw = f"{self.username}:{self.password}".encode()
        return "Basic " + base64.b64encode(raw).decode()


@dataclass(slots=True)
class Session:
    """What was learned from a registry's challenges: the header for each scope.

    Args:
        login: Who we are.
        origin: Scheme and authority of the registry.
        fetch: Sends a GET request.
    """

    login: Login
    origin: httpx.URL
    fetch: Callable[[httpx.URL, dict[str, str], dict[str, str]], httpx.Response]
    _headers: dict[str, str] = field(default_factory=dict)

    def header(self, scope: str) -> str:
        """Return the `Authorization` header known for a scope; empty when none is."""
        return self._headers.get(scope, "")

    def answer(self, challenge: str, scope: str) -> None:
        """Learn the header for a scope from a 401.

        Raises:
            DeniedError: `registry-refused`, when the credentials are missing or refused.
            InvalidError: `registry-refused`, for a challenge that cannot be followed.
        """
        kind, _, rest = challenge.partition(" ")
        if kind.lower() == "basic" and self.login.username:
            self._headers[scope] = self.login.basic
        elif kind.lower() == "bearer":
            parts = {found["key"]: found["value"] for found in _PART.finditer(rest)}
            self._headers[scope] = f"Bearer {self._token(parts, scope)}"
        else:
            raise refused("the registry asks for credentials")

    def _token(self, parts: dict[str, str], scope: str) -> str:
        try:
            realm = httpx.URL(parts.get("realm", ""))
        except httpx.InvalidURL:
            realm = httpx.URL("")
        same = (realm.scheme, realm.netloc) == (self.origin.scheme, self.origin.netloc)
        if realm.scheme != "https" and not same:
            raise InvalidError(
                "the registry names a token service that is not safe to talk to",
                code=Code.REGISTRY_REFUSED,
                hint="serve the registry and its tokens over https",
            )
        query = {"service": parts.get("service", ""), "scope": scope}
        headers = {"Authorization": self.login.basic} if self.login.username else {}
        response = self.fetch(realm, query, headers)
        if response.status_code != httpx.codes.OK or len(response.content) > _TOKEN_LIMIT:
            raise refused(f"the token service answered {response.status_code}")
        try:
            document = response.json()
            token = document.get("token") or document.get("access_token")
        except (ValueError, AttributeError):
            token = None
        if not isinstance(token, str) or not token.isprintable():
            raise refused("the token service gave no token")
        return token


def refused(message: str) -> DeniedError:
    """Return the error for a registry that does not let us."""
    return DeniedError(
        message,
        code=Code.REGISTRY_REFUSED,
        hint="check the user name and password of the registry and what they may do",
    )
