"""What a device's report says about the deployment it was sent. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hub.core.deployment import MemberState
from protocol.errors import Code

_OK = 200


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an update ended on a device."""

    state: MemberState
    code: str = ""
    message: str = ""


def outcome(reported: dict[str, Any], version: int) -> Outcome | None:
    """Return how desired version `version` ended, or None while it has not.

    Reads `$edgeAgent`'s fields: `lastDesiredVersion`, `lastDesiredStatus`, and our `x-update` with
    `version`, `state`, `code` and `message`.
    """
    update = reported.get("x-update")
    if isinstance(update, dict) and update.get("version") == version:
        if update.get("state") in ("failed", "rolled-back"):
            code = str(update.get("code") or Code.INTERNAL)
            return Outcome(MemberState.FAILED, code, str(update.get("message", "")))
        if update.get("state") != "succeeded":
            return None
    status = reported.get("lastDesiredStatus")
    is_newest = reported.get("lastDesiredVersion") == version
    if is_newest and isinstance(status, dict) and status.get("code") == _OK:
        return Outcome(MemberState.SUCCEEDED)
    return None


def bytes_pulled(reported: dict[str, Any]) -> int:
    """Return how many bytes of images a device says it has pulled in all."""
    value = reported.get("x-bytesPulled")
    return value if isinstance(value, int) else 0
