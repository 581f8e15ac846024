"""Who is calling the registry: the 401 challenge, Basic and Bearer, and the token endpoint.

Decides how credentials travel; what they allow is decided by the principals and the pure rules.
A refusal never depends on what exists.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hub.api.registry_wire import UnauthorizedError, receive_all
from hub.core.registry_access import (
    Access,
    Action,
    Grants,
    Principals,
    intersect,
    parse_scopes,
    scope_text,
)
from hub.services.registry_tokens import SERVICE, TTL_SECONDS, RegistryTokens
from protocol.errors import Code, DeniedError, InvalidError

_HOST = re.compile(r"[a-zA-Z0-9.-]{1,253}(?::\d{1,5})?|\[[0-9a-fA-F:]{2,45}\](?::\d{1,5})?")
_FORM_LIMIT = 64 * 1024
_PASSWORD_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody with valid credentials: an account, or a token that carries its rights."""

    subject: str
    access: Access | None = None
    grants: Grants | None = None

    def may(self, action: Action, repository: str) -> bool:
        """Tell whether it may do something with a repository."""
        if self.access is not None:
            return action in self.access.allowed(repository)
        return action in (self.grants or {}).get(repository, frozenset())


@dataclass(frozen=True, slots=True)
class Gate:
    """Lets callers in."""

    tokens: RegistryTokens
    principals: Principals

    async def admit(
        self, request: Request, repository: str = "", *actions: Action, mount_from: str = ""
    ) -> Caller:
        """Return the caller, who may do all of `actions` with `repository`.

        Args:
            request: Whose credentials count.
            repository: What it is about; empty for none.
            actions: What shall be done.
            mount_from: A second repository the client will want to pull from; only named in the
                challenge.

        Raises:
            UnauthorizedError: No or wrong credentials, or a token that carries less.
            DeniedError: `forbidden`, for an account that may not.
        """
        scopes = [scope_text(repository, actions)] if repository else []
        if mount_from:
            scopes.append(scope_text(mount_from, [Action.PULL]))
        challenge = _challenge(request, scopes)
        caller = await self._identify(request, challenge)
        if all(caller.may(action, repository) for action in actions):
            return caller
        if caller.access is None:
            raise UnauthorizedError(
                f"the token does not carry what '{repository}' needs",
                f'{challenge},error="insufficient_scope"',
            )
        raise DeniedError(
            f"'{caller.subject}' may not do this in '{repository}'",
            code=Code.FORBIDDEN,
            hint="ask an administrator for access to this repository",
        )

    async def token(self, request: Request) -> Response:
        """Exchange credentials for a token with what is both asked for and allowed."""
        fields = parse_qs(request.url.query, max_num_fields=256)
        if request.method == "POST":
            body = await receive_all(request, limit=_FORM_LIMIT)
            fields |= parse_qs(body.decode("utf-8", "replace"), max_num_fields=256)
        access = await self._account(request, fields)
        grants = intersect(access, parse_scopes(fields.get("scope", [])))
        token, expires = self.tokens.issue(access.subject, grants)
        issued = datetime.fromtimestamp(expires - TTL_SECONDS, UTC)
        answer = {
            "token": token,
            "access_token": token,
            "expires_in": TTL_SECONDS,
            "issued_at": issued.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "scope": " ".join(scope_text(name, actions) for name, actions in grants.items()),
        }
        return JSONResponse(answer, headers={"Cache-Control": "no-store"})

    async def _identify(self, request: Request, challenge: str) -> Caller:
        kind, _, value = request.headers.get("Authorization", "").partition(" ")
        try:
            match kind.lower():
                case "bearer":
                    bearer = self.tokens.verify(value.strip())
                    return Caller(bearer.subject, grants=bearer.grants)
                case "basic":
                    access = await self.principals.authenticate(*_basic(value))
                    return Caller(access.subject, access=access)
                case _:
                    raise UnauthorizedError("credentials are missing", challenge)
        except DeniedError as error:
            raise UnauthorizedError(str(error), challenge) from error

    async def _account(self, request: Request, fields: dict[str, list[str]]) -> Access:
        kind, _, value = request.headers.get("Authorization", "").partition(" ")
        challenge = f'Basic realm="{SERVICE}"'
        if kind.lower() == "basic":
            username, password = _basic(value)
        elif request.method == "POST" and fields.get("grant_type") == ["password"]:
            username = fields.get("username", [""])[0][:_PASSWORD_LIMIT]
            password = fields.get("password", [""])[0][:_PASSWORD_LIMIT]
        else:
            raise UnauthorizedError("a user name and a password are needed", challenge)
        try:
            return await self.principals.authenticate(username, password)
        except DeniedError as error:
            raise UnauthorizedError(str(error), challenge) from error


def _challenge(request: Request, scopes: Iterable[str]) -> str:
    host = request.headers.get("Host", "")
    if not _HOST.fullmatch(host):
        raise InvalidError(
            "the Host header is not valid", code=Code.REQUEST_INVALID, hint="send 'name:port'"
        )
    realm = f"{request.url.scheme}://{host}/v2/token"
    scope = " ".join(scopes)
    return f'Bearer realm="{realm}",service="{SERVICE}"' + (f',scope="{scope}"' if scope else "")


def _basic(value: str) -> tuple[str, str]:
    try:
        text = base64.b64decode(value.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        text = ""
    username, _, password = text.partition(":")
    return username[:_PASSWORD_LIMIT], password[:_PASSWORD_LIMIT]
