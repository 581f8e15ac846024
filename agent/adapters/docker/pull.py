"""Lets the engine pull an image, and finds out how that went.

The engine verifies digests itself and reports failure only as a sentence in a stream, so this
module decides what a sentence means. It also places the authority's certificate where the engine
looks for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.adapters.docker.options import is_loopback
from protocol.errors import (
    Code,
    DeniedError,
    DeviceError,
    FleetError,
    InvalidError,
    UnavailableError,
)
from protocol.ids import ImageRef
from protocol.messages import Credential

CERTIFICATES = Path("/etc/docker/certs.d")
_REFUSED = (
    "unauthorized",
    "denied",
    "no basic auth credentials",
    "authentication required",
    "forbidden",
)
_ALTERED = ("verification failed", "invalid checksum digest", "unexpected commit digest")
_UNSUITABLE = ("no matching manifest", "no match for platform", "does not match the specified")
_UNTRUSTED = ("x509", "certificate")


@dataclass
class Progress:
    """Bytes an engine says it has downloaded, by layer."""

    lines: int = 0
    _layers: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def bytes_received(self) -> int:
        """The sum over all layers."""
        return sum(current for current, _ in self._layers.values())

    def note(self, line: dict[str, Any]) -> None:
        """Take one line of the stream into account."""
        self.lines += 1
        layer, status = line.get("id", ""), line.get("status", "")
        detail = line.get("progressDetail") or {}
        current, total = self._layers.get(layer, (0, 0))
        if status == "Downloading":
            total = int(detail.get("total") or total)
            self._layers[layer] = (max(current, int(detail.get("current") or 0)), total)
        elif status in ("Download complete", "Verifying Checksum") and layer in self._layers:
            self._layers[layer] = (max(current, total), total)


def engine_credential(credential: Credential) -> dict[str, str]:
    """Return a credential as the engine's pull call takes it."""
    if credential.kind == "bearer":
        return {"registrytoken": credential.token}
    if credential.kind == "basic":
        return {"username": credential.username, "password": credential.password}
    return {}


def follow(stream: Iterable[dict[str, Any]], image: ImageRef, progress: Progress) -> None:
    """Read a pull's stream to its end.

    Raises:
        FleetError: See `pull_error`.
    """
    failure = ""
    for line in stream:  # to the very end, else the connection is not given back
        progress.note(line)
        failure = failure or str(line.get("error", ""))
    if failure:
        raise pull_error(image, failure)


def pull_error(image: ImageRef, sentence: str) -> FleetError:
    """Return what an engine's sentence about a failed pull means."""
    words = sentence.lower()
    short = " ".join(sentence.split())[:300]
    what = f"image {str(image)!r} could not be pulled: {short}"
    if any(mark in words for mark in _ALTERED):
        return InvalidError(
            what, code=Code.DIGEST_MISMATCH, hint="pull again, then push the image again"
        )
    if any(mark in words for mark in _UNTRUSTED):
        return UnavailableError(
            what, code=Code.IMAGE_UNAVAILABLE, hint=f"put the authority into {_hint_file(image)}"
        )
    if any(mark in words for mark in _REFUSED):
        hint = "check that the image belongs to this device's deployment, and its credentials"
        return DeniedError(what, code=Code.REGISTRY_REFUSED, hint=hint)
    if "no space left" in words:
        hint = "free some space where the engine keeps its images"
        return DeviceError(what, code=Code.DISK_FULL, hint=hint)
    if any(mark in words for mark in _UNSUITABLE):
        hint = "build the image for this machine's architecture too"
        return DeviceError(what, code=Code.IMAGE_UNSUITABLE, hint=hint)
    hint = "check the network between this device and the registry"
    return UnavailableError(what, code=Code.IMAGE_UNAVAILABLE, hint=hint)


def place_certificate(authority: str, ca_pem: str, folder: Path = CERTIFICATES) -> bool:
    """Let the engine trust a registry; tell whether it can.

    Nothing is written for a registry on this machine, or without an authority of its own.
    """
    if not ca_pem or is_loopback(authority):
        return True
    path = folder / authority / "ca.crt"
    try:
        if path.exists() and path.read_text() == ca_pem:
            return True
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(ca_pem)
    except OSError:
        return False
    return True


def _hint_file(image: ImageRef) -> str:
    return f"`{CERTIFICATES / image.authority / 'ca.crt'}`"
