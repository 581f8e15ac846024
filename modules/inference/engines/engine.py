"""The port to an inference backend: named tensors in, named tensors out.

Says what every engine promises; holds no backend. An engine is chosen once, at start.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Tensor = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, numpy dtype and shape of one tensor; None is a dimension that may vary."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]

    def describe(self) -> dict[str, object]:
        """Return the spec as JSON: dtype by name ('string' for text), -1 for free dimensions."""
        name = "string" if self.dtype == np.dtype(object) else self.dtype.name
        shape = [-1 if size is None else size for size in self.shape]
        return {"name": self.name, "dtype": name, "shape": shape}


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """Which engine serves, in which version, and the tensors of its model."""

    engine: str
    engine_version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Engine(Protocol):
    """An inference backend with one model. Used from one thread at a time."""

    def load(self, path: Path) -> None:
        """Make the model ready to run. Raises StartupError if it cannot be read."""

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return all outputs by name. `inputs` hold exactly the model's inputs, checked."""

    def metadata(self) -> ModelMetadata:
        """Return what is known of the loaded model."""
