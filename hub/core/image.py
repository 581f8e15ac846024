"""An image the hub packaged: which models it carries and how its building went."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from protocol.ids import Digest


class ImageState(StrEnum):
    """The life of an image."""

    BUILDING = "building"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """One layer: what it holds, and how much of the wire it costs."""

    kind: str
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Image:
    """One version of an image.

    Attributes:
        name: Repository in the registry.
        version: Counts from 1; also its tag.
        state: Whether it can be deployed.
        models: The models inside, as `name:version`.
        digest: Digest of its manifest, once it is ready.
        reference: Where devices pull it: authority, repository and digest, once it is ready.
        layers: Its layers, base first.
        progress: The step being worked on, for people.
        error_code: Why it failed.
        error: The sentence that goes with it.
        error_hint: What to do about it.
    """

    name: str
    version: int
    state: ImageState
    models: tuple[str, ...]
    created_at: datetime
    architecture: str = "amd64"
    digest: Digest | None = None
    reference: str = ""
    layers: tuple[LayerInfo, ...] = ()
    progress: str = ""
    error_code: str = ""
    error: str = ""
    error_hint: str = ""

    @property
    def ref(self) -> str:
        """The image as people write it: `name:version`."""
        return f"{self.name}:{self.version}"
