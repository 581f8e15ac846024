from pathlib import Path
from typing import Any

import pytest
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression


@pytest.fixture(scope="session")
def digits() -> tuple[list[list[float]], list[int]]:
    """Return the first rows of the digits with their labels."""
    rows, labels = load_digits(return_X_y=True)
    return rows[:20].tolist(), labels[:20].tolist()


def export_digits(folder: Path, **options: Any) -> Path:
    rows, labels = load_digits(return_X_y=True)
    model = LogisticRegression(max_iter=2000).fit(rows[:600], labels[:600])
    graph = to_onnx(
        model,
        initial_types=[("input", FloatTensorType([None, 64]))],
        options={id(model): options},
        target_opset=17,
    )
    (folder / "digits.onnx").write_bytes(graph.SerializeToString())
    return folder


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model folder in Azure ML's layout, with outputs `label` and `probabilities`."""
    folder = tmp_path_factory.mktemp("root") / "azureml-models" / "digits" / "3"
    folder.mkdir(parents=True)
    return export_digits(folder, zipmap=False)


@pytest.fixture(scope="session")
def digits_zipmap_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model folder whose classifier answers with maps from class to probability."""
    return export_digits(tmp_path_factory.mktemp("zipmap"))
