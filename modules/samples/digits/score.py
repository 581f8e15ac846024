"""Serves a classifier of 8x8 digits: the Azure ML v1 way, with an ONNX model.

Request: `{"data": [[64 numbers from 0 to 16], ...]}`.
Answer: `{"label": [...], "probabilities": [[10 numbers], ...]}`, one entry per row.
"""
# ruff: noqa: INP001 - an entry script is a file of its own, not a module of a package

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

state: dict[str, Any] = {}


def init() -> None:
    """Load the ONNX model of the model folder."""
    folder = Path(os.environ["AZUREML_MODEL_DIR"])
    model = next(folder.rglob("*.onnx"))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    state["session"] = session
    state["input"] = session.get_inputs()[0].name


def run(data: str) -> dict[str, list[Any]]:
    """Classify every row."""
    rows = np.array(json.loads(data)["data"], dtype=np.float32)
    session = state["session"]
    label, probabilities = session.run(["label", "probabilities"], {state["input"]: rows})
    return {"label": label.tolist(), "probabilities": probabilities.tolist()}
