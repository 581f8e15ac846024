"""A registered model: one immutable version of some bytes and what is known about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from protocol.ids import Digest


@dataclass(frozen=True, slots=True)
class Model:
    """One version of a model.

    Attributes:
        name: Shared by all versions.
        version: Counts from 1; never changes, never comes back.
        digest: Digest of the file.
        size: Bytes of the file.
        filename: Name the file has inside an image.
        framework: For example `onnx`, `scikit-learn`; empty when unknown.
        golden: Golden samples as they stand in a manifest (`x-goldenSamples`), or None.
    """

    name: str
    version: int
    digest: Digest
    size: int
    filename: str
    created_at: datetime
    framework: str = ""
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    golden: dict[str, Any] | None = None

    @property
    def ref(self) -> str:
        """The model as people write it: `name:version`."""
        return f"{self.name}:{self.version}"
