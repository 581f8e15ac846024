"""The onnxruntime engine on the CPU. Importing this module loads onnxruntime, so choose first."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from ..errors import StartupCode, StartupError
from .engine import Engine, ModelMetadata, Tensor, TensorSpec

_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(bool)": np.dtype(np.bool_),
    "tensor(string)": np.dtype(object),
    **{f"tensor({name})": np.dtype(name) for name in ("int8", "int16", "int32", "int64")},
    **{f"tensor({name})": np.dtype(name) for name in ("uint8", "uint16", "uint32", "uint64")},
}


class OnnxEngine(Engine):
    """Runs one ONNX model with `threads` threads inside an operator, none between operators."""

    def __init__(self, *, threads: int = 1) -> None:
        self._threads = threads
        self._session: Any = None
        self._metadata: ModelMetadata | None = None

    def load(self, path: Path) -> None:
        """Read and prepare the model; StartupError if onnxruntime refuses it."""
        try:
            self._session = ort.InferenceSession(
                str(path), self._options(), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base of their own
            raise StartupError(
                StartupCode.MODEL_INVALID,
                f"onnxruntime cannot load '{path.name}': {_first_line(error)}",
                hint="export the model again, or for an opset this onnxruntime knows",
            ) from error
        self._metadata = ModelMetadata(
            "onnxruntime",
            ort.__version__,
            tuple(_spec(node) for node in self._session.get_inputs()),
            tuple(_spec(node) for node in self._session.get_outputs()),
        )

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs by name; class maps become one column per class."""
        names = [spec.name for spec in self.metadata().outputs]
        values = self._session.run(names, dict(inputs))
        return {name: _tensor(value) for name, value in zip(names, values, strict=True)}

    def metadata(self) -> ModelMetadata:
        """Return the loaded model's tensors. Calling it before load() is a bug."""
        if self._metadata is None:
            raise RuntimeError("no model is loaded")
        return self._metadata

    def _options(self) -> Any:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        # A spinning thread takes a core of a small device from everyone else.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        return options


def _spec(node: Any) -> TensorSpec:
    # A sequence of maps (a classifier exported with class names) leaves run() as a matrix.
    dtype = _DTYPES.get(node.type, np.dtype(np.float32))
    shape = tuple(size if isinstance(size, int) else None for size in node.shape or ())
    return TensorSpec(node.name, dtype, shape if node.type in _DTYPES else (None, None))


def _tensor(value: Any) -> Tensor:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return np.array([list(row.values()) for row in value], dtype=np.float32)
    return np.asarray(value)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
