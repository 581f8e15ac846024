"""The role of whoever provides base layers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hub.adapters.packaging.budget import Budget
from hub.core.packaging import Architecture, Layer, Progress


class BaseImages(Protocol):
    """Where base layers come from."""

    def obtain(self, architecture: Architecture, budget: Budget, progress: Progress) -> BaseLayer:
        """Return the base layer for a processor.

        Raises:
            FleetError: `base-unavailable`.
        """
        ...


@dataclass(frozen=True, slots=True)
class BaseLayer:
    """A base layer on the disk and the Python inside."""

    layer: Layer
    path: Path
    python_version: str
