"""How a registry is convinced that this device may pull.

Decides which `Authorization` a request carries and answers Bearer challenges; keeps the tokens it
was given in memory only, and sends a password to nothing but TLS (or to a plain-text registry that
was configured as such).
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from urllib.parse import urlencode

from protocol.errors import Code, DeniedError
from protocol.ids import ImageRef
from protocol.messages import Credential

_SCHEME = re.compile(r"(?:^|,\s*)bearer\s+(.*)", re.IGNORECASE | re.DOTALL)
_PARAMETER = re.compile(r'([a-zA-Z_]+)="([^"]*)"')
_TOKEN_LIMIT = 64 * 1024


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """Where to fetch a token, and with which header."""

    url: str
    authorization: str | None


def authorization(credential: Credential) -> str | None:
    """Return the header value a first request carries; None when it carries none."""
    if credential.kind == "bearer":
        return f"Bearer {credential.token}"
    if credential.kind == "basic":
        pair = f"{credential.username}:{credential.password}".encode()
        return "Basic " + base64.b64encode(pair).decode("ascii")
    return None


def answer_challenge(
    challenge: str, image: ImageRef, credential: Credential, *, allow_plain: bool
) -> TokenRequest:
    """Return where to get a token after a 401.

    Args:
        challenge: The answer's `WWW-Authenticate`.
        image: What is pulled; names the scope when the challenge does not.
        credential: What this device holds.
        allow_plain: Whether the registry itself is reached without TLS.

    Raises:
        DeniedError: `registry-refused`, when there is nothing else to try.
    """
    found = _SCHEME.search(challenge)
    if credential.kind == "bearer" or found is None:
        raise refused(image, "the credential is not accepted")
    parameters = {key.lower(): value for key, value in _PARAMETER.findall(found.group(1))}
    realm = parameters.get("realm", "")
    if not (realm.startswith("https://") or (allow_plain and realm.startswith("http://"))):
        raise refused(image, "it asks for a password without encryption")
    query = {"scope": parameters.get("scope") or f"repository:{image.repository}:pull"}
    if "service" in parameters:
        query["service"] = parameters["service"]
    joint = "&" if "?" in realm else "?"
    return TokenRequest(f"{realm}{joint}{urlencode(query)}", authorization(credential))


def parse_token(raw: bytes, image: ImageRef) -> str:
    """Return the token in a token endpoint's answer.

    Raises:
        DeniedError: `registry-refused`, when there is none.
    """
    if len(raw) > _TOKEN_LIMIT:
        raise refused(image, "its token is too large")
    try:
        answer = json.loads(raw)
    except ValueError as error:
        raise refused(image, "its token cannot be read") from error
    token = answer.get("token") or answer.get("access_token") if isinstance(answer, dict) else None
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise refused(image, "it answered without a token")
    return token


def refused(image: ImageRef, why: str) -> DeniedError:
    """Return the error for a registry that says no."""
    return DeniedError(
        f"the registry {image.authority!r} refused {image.repository!r}: {why}",
        code=Code.REGISTRY_REFUSED,
        hint="check that the image belongs to this device's deployment, and its credentials",
    )
