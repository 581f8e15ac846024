"""Which recipes are acceptable, and what an image says about itself."""

import json
from dataclasses import replace
from typing import Any

import pytest

from hub.core.packaging import (
    Layer,
    LayerKind,
    ModelFile,
    Recipe,
    check_recipe,
    check_requirements,
    image_config,
    image_manifest,
)
from protocol.errors import FleetError, InvalidError
from protocol.ids import digest_of

MODEL = ModelFile("digits", 1, "model.onnx", digest_of(b"m"))
GOOD = Recipe("team/digits", "1", (MODEL,))
LAYER = Layer(LayerKind.MODEL, digest_of(b"l"), 3, digest_of(b"l"), compressed=False)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Upper"},
        {"name": "a/../b"},
        {"tag": "a/b"},
        {"models": ()},
        {"models": (MODEL, MODEL)},
        {"models": tuple(replace(MODEL, version=n + 1) for n in range(33))},
        {"models": (replace(MODEL, name="../x"),)},
        {"models": (replace(MODEL, version=0),)},
        {"models": (replace(MODEL, filename="../x"),)},
        {"models": (replace(MODEL, filename="a/b"),)},
        {"models": (replace(MODEL, filename=".."),)},
        {"models": (replace(MODEL, filename=""),)},
        {"code": digest_of(b"c")},
        {"entry_script": "score.py"},
        {"code": digest_of(b"c"), "entry_script": "../score.py"},
        {"code": digest_of(b"c"), "entry_script": "/score.py"},
        {"code": digest_of(b"c"), "entry_script": "score.txt"},
        {"code": digest_of(b"c"), "entry_script": "a\n.py"},
        {"python_version": "2.7"},
        {"python_version": "3.11; rm"},
        {"env": {"PYTHONPATH": "x"}},
        {"env": {"1A": "x"}},
        {"env": {"A": "x\0y"}},
        {"labels": {"A B": "x"}},
        {"requirements": ("--index-url=x",)},
    ],
)
def test_recipes_that_cannot_be_built_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FleetError):
        check_recipe(replace(GOOD, **change))


@pytest.mark.parametrize(
    "line",
    [
        "numpy",
        "numpy==1.26.4",
        "numpy>=1.2,<2",
        "numpy ~= 1.26",
        "scikit-learn[extra, more]==1.*",
        "tomli>=1; python_version < '3.11'",
        'x ; sys_platform == "linux" and platform_machine != "arm64"',
        "a==1 --hash=sha256:" + "0" * 64,
        "  spaced  # with a comment",
        "# only a comment",
        "",
    ],
)
def test_ordinary_requirements_are_taken(line: str) -> None:
    check_requirements([line])


@pytest.mark.parametrize(
    "line",
    [
        "-e .",
        "-r other.txt",
        "--find-links /etc",
        "./local",
        "../up.whl",
        "/etc/passwd",
        "a @ file:///etc/passwd",
        "a@git+ssh://host/x",
        "a==1 --index-url=x",
        "a==1 --config-settings=x=y",
        "a\n-e .",
        "a b",
        "a==1;" + "x" * 400,
        "a" * 10_000,
    ],
)
def test_requirements_that_reach_out_are_refused(line: str) -> None:
    with pytest.raises(InvalidError):
        check_requirements([line])


def test_the_configuration_names_what_the_server_reads() -> None:
    recipe = replace(
        GOOD,
        code=digest_of(b"c"),
        entry_script="src/score.py",
        env={"MINE": "1"},
        labels={"a": "b"},
    )
    config = json.loads(image_config(recipe, [LAYER]))["config"]

    assert config["Env"] == [
        "AML_APP_ROOT=/var/azureml-app",
        "AZUREML_ENTRY_SCRIPT=src/score.py",
        "AZUREML_MODEL_DIR=/var/azureml-app/azureml-models/digits/1",
        "MINE=1",
        "PATH=/usr/local/bin:/usr/bin:/bin",
        "PYTHONDONTWRITEBYTECODE=1",
        "PYTHONPATH=/opt/rimward/server:/opt/rimward/site",
        "RIMWARD_MODULE_HOST=0.0.0.0",
        "RIMWARD_MODULE_PORT=5001",
    ]
    assert config["Entrypoint"] == ["python3", "-m", "inference"]
    assert config["User"] == "65532"
    assert config["Labels"] == {
        "a": "b",
        "io.rimward.base": "host",
        "io.rimward.models": "digits:1",
        "io.rimward.python": "3.11",
    }


def test_several_models_share_the_root_of_models() -> None:
    recipe = replace(GOOD, models=(MODEL, replace(MODEL, name="faces")))
    config = json.loads(image_config(recipe, [LAYER]))["config"]

    assert "AZUREML_MODEL_DIR=/var/azureml-app/azureml-models" in config["Env"]
    assert config["Labels"]["io.rimward.models"] == "digits:1,faces:1"


def test_the_manifest_says_what_each_layer_is() -> None:
    packed = replace(LAYER, kind=LayerKind.DEPS, compressed=True)
    manifest = json.loads(image_manifest(digest_of(b"c"), 1, [packed, LAYER]))

    rows = [
        (row["annotations"]["io.rimward.layer"], row["mediaType"]) for row in manifest["layers"]
    ]
    assert rows == [
        ("deps", "application/vnd.oci.image.layer.v1.tar+gzip"),
        ("model", "application/vnd.oci.image.layer.v1.tar"),
    ]
