"""The model of the demo: scikit-learn's handwritten digits, a good classifier and a bad one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GOLDEN = 20
_SEED = 7


@dataclass(frozen=True, slots=True)
class Digits:
    """Held-out images with their true labels, and the files of two models.

    Attributes:
        frames: Request bodies by name: one 8x8 image each.
        truth: True digit by name.
        golden: Golden samples made of further held-out images.
        good: ONNX file of a classifier that was trained well.
        bad: ONNX file of one that starts and answers, but wrongly.
        accuracy: Of the good one on all held-out images, measured here.
    """

    frames: dict[str, bytes]
    truth: dict[str, int]
    golden: dict[str, Any]
    good: Path
    bad: Path
    accuracy: float


def make(folder: Path) -> Digits:
    """Train both models on two thirds of the data and export them; the rest is held out."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - seconds, and only for the demo
    from sklearn.model_selection import train_test_split  # noqa: PLC0415

    images, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=1 / 3, random_state=_SEED, stratify=labels
    )
    good = _train(train_x, train_y)
    # Every label off by one: the kind of mistake that crashes nothing.
    bad = _train(train_x, (train_y + 1) % 10)
    names = [f"digit-{number:04d}" for number in range(len(test_x))]
    bodies = [json.dumps({"data": [row.tolist()]}).encode() for row in test_x]
    samples = [
        {"input": json.loads(body), "expected": {"label": [int(label)]}}
        for body, label in zip(bodies[:GOLDEN], test_y[:GOLDEN], strict=True)
    ]
    rest = slice(GOLDEN, None)
    return Digits(
        frames=dict(zip(names[rest], bodies[rest], strict=True)),
        truth={n: int(y) for n, y in zip(names[rest], test_y[rest], strict=True)},
        golden={"samples": samples, "minPass": 0.9},
        good=_export(good, folder / "good"),
        bad=_export(bad, folder / "bad"),
        accuracy=float(good.score(test_x, test_y)),
    )


def _train(images: Any, labels: Any) -> Any:
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - as above
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)).fit(images, labels)


def _export(model: Any, folder: Path) -> Path:
    from skl2onnx import to_onnx  # noqa: PLC0415 - as above
    from skl2onnx.common.data_types import FloatTensorType  # noqa: PLC0415

    shape = [("image", FloatTensorType([None, 64]))]
    exported = to_onnx(model, initial_types=shape, options={"zipmap": False})
    folder.mkdir(parents=True)
    path = folder / "model.onnx"
    path.write_bytes(exported.SerializeToString())
    return path
