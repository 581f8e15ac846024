"""The machine's own package index: what pip was told here, in uv's words.

uv reads none of pip's configuration, and people have set up pip: a mirror, its certificate, a
folder of wheels. Whoever has set up uv itself is left alone.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Mapping

_SCOPES = ("global", "user", "site", ":env:")  # the later wins
_VARIABLES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "cert": "SSL_CERT_FILE",
}
_SEPARATORS = {"UV_INDEX": " ", "UV_FIND_LINKS": ","}
_OWN = frozenset(_VARIABLES.values()) - {"SSL_CERT_FILE"} | {"UV_INDEX_URL", "UV_EXTRA_INDEX_URL"}
_SECONDS = 30.0


def uv_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for uv: `environment`, and what pip is set to where uv has no setting.

    Asks the pip of this interpreter; without one, or when it fails, the environment stays as it is.
    """
    if not _OWN.isdisjoint(environment):
        return dict(environment)
    try:
        listing = subprocess.run(
            [sys.executable, "-m", "pip", "config", "list"],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=True,
            env=dict(environment),
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return dict(environment)
    return {**translate(listing), **environment}


def translate(listing: str) -> dict[str, str]:
    """Return uv's variables for what `pip config list` printed, as far as uv has a word for it."""
    found: dict[str, str] = {}
    for scope in _SCOPES:
        for line in listing.splitlines():
            name, _, quoted = line.partition("=")
            where, _, key = name.rpartition(".")
            variable = _VARIABLES.get(key.lower().replace("_", "-"))
            value = _value(quoted, _SEPARATORS.get(variable or "", " "))
            if where == scope and variable and value:
                found[variable] = value
    return found


def _value(quoted: str, separator: str) -> str:
    try:
        value = ast.literal_eval(quoted)
    except (ValueError, SyntaxError):
        value = quoted
    return separator.join(str(value).split())
