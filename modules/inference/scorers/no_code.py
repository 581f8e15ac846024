"""Serves one model without a script: JSON in, JSON out, checked against the model's own inputs."""

import sys
from pathlib import Path

from ..engines.engine import Engine, Tensor, TensorSpec
from ..engines.tensors import to_tensors
from ..errors import BadInputError
from ..exchange import ScoreRequest
from .script_input import as_object

# Names that scikit-learn exports use for the two answers of a classifier.
_CLASSIFIER = {"output_label": "label", "output_probability": "probabilities"}


class NoCodeScorer:
    """A Scorer over an engine: `{"data": ...}` or `{"<input>": ...}` to `{"<output>": ...}`."""

    raw_http = False

    def __init__(self, path: Path, engine: Engine) -> None:
        """Name the model file for the engine to load in init()."""
        self._path = path
        self._engine = engine

    def init(self) -> None:
        """Load the model; StartupError if the engine refuses it."""
        self._engine.load(self._path)

    def read(self, request: ScoreRequest) -> dict[str, object]:
        """Return the model's inputs as tensors, or raise BadInputError."""
        specs = self._engine.metadata().inputs
        return dict(to_tensors(named_inputs(as_object(request), specs), specs))

    def run(self, arguments: dict[str, object]) -> object:
        """Return the outputs as nested lists."""
        tensors: dict[str, Tensor] = arguments  # type: ignore[assignment]  # as read() made them
        outputs = self._engine.run(tensors)
        renames = _CLASSIFIER if outputs.keys() == _CLASSIFIER.keys() else {}
        return {renames.get(name, name): value.tolist() for name, value in outputs.items()}

    def describe(self) -> dict[str, object]:
        """Return engine, inputs and outputs of the loaded model."""
        known = self._engine.metadata()
        ort = sys.modules.get("onnxruntime")
        return {
            "engine": {
                "name": known.engine,
                "version": known.engine_version,
                "model": self._path.name,
                "onnxruntime": getattr(ort, "__version__", None),
            },
            "inputs": [spec.describe() for spec in known.inputs],
            "outputs": [spec.describe() for spec in known.outputs],
        }


def named_inputs(values: dict[str, object], specs: tuple[TensorSpec, ...]) -> dict[str, object]:
    """Return the values by input name; `data` stands for the only input of a model.

    Raises BadInputError when `data` is given to a model with several inputs.
    """
    if "data" not in values or any(spec.name == "data" for spec in specs):
        return values
    if len(specs) != 1:
        names = ", ".join(repr(spec.name) for spec in specs)
        raise BadInputError(f"'data' is not enough for a model with the inputs {names}")
    others = {name: value for name, value in values.items() if name != "data"}
    return {specs[0].name: values["data"], **others}
