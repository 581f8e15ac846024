"""Routes of the edge hub: which messages of which module go where.

Reads `FROM <source> INTO <sink>`; a WHERE condition is refused with its reason rather than ignored.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from protocol.errors import Code, InvalidError

_ROUTE = re.compile(
    r"(?:SELECT\s+\*\s+)?FROM\s+(?P<source>/\S+)\s+(?P<where>WHERE\s.*\s)?INTO\s+(?P<sink>\S.*)",
    re.IGNORECASE | re.DOTALL,
)
_BROKERED = re.compile(
    r"BrokeredEndpoint\(\s*(['\"])/modules/(?P<module>[A-Za-z0-9_-]+)/inputs/(?P<input>[A-Za-z0-9_-]+)\1\s*\)",
    re.IGNORECASE,
)
_SOURCE = re.compile(
    r"/\*|/messages/\*|/messages/modules/\*|/messages/modules/[A-Za-z0-9_-]+/(?:\*|outputs/(?:\*|[A-Za-z0-9_-]+))"
)


class Route(msgspec.Struct, frozen=True):
    """A parsed route.

    Attributes:
        prefix: Source path up to the star; a message matches when its path starts with it.
        exact: Whether the path must be equal instead.
        sink: `upstream`, or `module`.
        module: Receiving module, for sink `module`.
        input: Receiving input, for sink `module`.
    """

    prefix: str
    exact: bool
    sink: Literal["upstream", "module"]
    module: str = ""
    input: str = ""

    def matches(self, module: str, output: str) -> bool:
        """Tell whether a message that left `module` by `output` takes this route."""
        path = f"/messages/modules/{module}/outputs/{output}"
        return path == self.prefix if self.exact else path.startswith(self.prefix)


def parse_route(text: str) -> Route:
    """Return the route in `text`, or raise InvalidError (`manifest-invalid`)."""
    found = _ROUTE.fullmatch(text.strip())
    if not found:
        raise _refuse(
            f"route {text[:120]!r} cannot be read", "write 'FROM /messages/* INTO $upstream'"
        )
    if found["where"]:
        raise _refuse("a WHERE condition is not supported", "route by module and output name")
    source = found["source"]
    if not _SOURCE.fullmatch(source):
        raise _refuse(
            f"source {source[:80]!r} is not one of the edge hub's", "for example '/messages/*'"
        )
    prefix, exact = source.removesuffix("*"), not source.endswith("*")
    if found["sink"].lower() == "$upstream":
        return Route(prefix, exact, "upstream")
    brokered = _BROKERED.fullmatch(found["sink"])
    if not brokered:
        hint = "write '$upstream' or 'BrokeredEndpoint(\"/modules/<name>/inputs/<input>\")'"
        raise _refuse(f"sink {found['sink'][:80]!r} is not one of the edge hub's", hint)
    return Route(prefix, exact, "module", brokered["module"], brokered["input"])


def _refuse(message: str, hint: str) -> InvalidError:
    return InvalidError(message, code=Code.MANIFEST_INVALID, hint=hint)
