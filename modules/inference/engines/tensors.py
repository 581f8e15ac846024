"""Between JSON values and tensors: the only place that judges whether an input fits a model."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import BadInputError
from .engine import Tensor, TensorSpec


def to_tensors(values: Mapping[str, object], specs: tuple[TensorSpec, ...]) -> dict[str, Tensor]:
    """Return one checked tensor per spec, or raise BadInputError naming the input."""
    known = ", ".join(repr(spec.name) for spec in specs)
    for name in values:
        if all(spec.name != name for spec in specs):
            raise BadInputError(f"the model has no input {name!r}; its inputs are {known}")
    for spec in specs:
        if spec.name not in values:
            raise BadInputError(f"input {spec.name!r} is missing; the model's inputs are {known}")
    return {spec.name: to_tensor(values[spec.name], spec) for spec in specs}


def to_tensor(value: object, spec: TensorSpec) -> Tensor:
    """Return `value` (nested JSON lists) as a contiguous tensor of the spec's type and shape."""
    try:
        natural: Tensor = np.asarray(value)
    except (ValueError, OverflowError, RecursionError):
        raise BadInputError(f"input {spec.name!r} has rows of different lengths") from None
    _check_shape(natural, spec)
    if not _converts(natural, spec.dtype):
        raise BadInputError(
            f"input {spec.name!r} holds values that do not convert to {spec.describe()['dtype']}"
        )
    with np.errstate(over="ignore"):  # a double too large for a float is infinite there
        return np.ascontiguousarray(natural, dtype=spec.dtype)


def _check_shape(tensor: Tensor, spec: TensorSpec) -> None:
    wanted = f"[{', '.join('any' if size is None else str(size) for size in spec.shape)}]"
    if tensor.ndim != len(spec.shape):
        raise BadInputError(
            f"input {spec.name!r} has {tensor.ndim} dimensions,"
            f" the model takes {len(spec.shape)}: {wanted}"
        )
    for found, size in zip(tensor.shape, spec.shape, strict=True):
        if size is not None and found != size:
            raise BadInputError(
                f"input {spec.name!r} has shape {list(tensor.shape)}, the model takes {wanted}"
            )


def _converts(tensor: Tensor, dtype: np.dtype[Any]) -> bool:
    given, wanted = tensor.dtype.kind, dtype.kind
    if wanted == "O":  # text
        return given == "U"
    if wanted == "b":
        return given == "b"
    if wanted == "f":
        return given in "biuf"
    if wanted not in "iu" or given not in "biu":
        return False
    limits = np.iinfo(dtype)
    return tensor.size == 0 or (int(tensor.min()) >= limits.min and int(tensor.max()) <= limits.max)
