"""The `azureml` names inside images: run in a process that sees only the shim."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inference_process import MODULES

from modules.azureml_shim.azureml.contrib.services.aml_request import AMLRequest
from modules.azureml_shim.azureml.contrib.services.aml_response import AMLResponse
from modules.azureml_shim.azureml.contrib.services.multipart import parse_multipart

FIND = """
from azureml.core import Model
from azureml.core.model import ModelNotFoundException
import sys
try:
    print(Model.get_model_path(*sys.argv[1:]))
except ModelNotFoundException as error:
    print("missing:", error)
"""


def find(folder: Path, model_dir: str, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-S", "-c", FIND, *arguments],
        env={"PYTHONPATH": str(MODULES / "azureml_shim"), "AZUREML_MODEL_DIR": model_dir},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.strip()


@pytest.fixture
def app(tmp_path: Path) -> Path:
    for name, version, file in [
        ("digits", "9", "digits.onnx"),
        ("digits", "10", "digits.onnx"),
        ("faces.pkl", "1", "faces.pkl"),
    ]:
        folder = tmp_path / "azureml-models" / name / version
        folder.mkdir(parents=True)
        (folder / file).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("model_dir", "arguments", "found"),
    [
        ("azureml-models", ("digits",), "azureml-models/digits/10/digits.onnx"),
        ("azureml-models", ("digits", "9"), "azureml-models/digits/9/digits.onnx"),
        ("azureml-models/digits/9", ("digits", "9"), "azureml-models/digits/9/digits.onnx"),
        ("azureml-models/digits/9", ("faces.pkl",), "azureml-models/faces.pkl/1/faces.pkl"),
        ("", ("faces.pkl",), "azureml-models/faces.pkl/1/faces.pkl"),
    ],
)
def test_a_model_is_found_by_name_and_version(
    app: Path, model_dir: str, arguments: tuple[str, ...], found: str
) -> None:
    assert find(app, model_dir, *arguments) == found


def test_a_file_of_the_working_directory_is_the_last_resort(app: Path) -> None:
    (app / "local.pkl").touch()

    assert find(app, "azureml-models", "local.pkl") == "local.pkl"


def test_a_model_that_is_not_there_is_named(app: Path) -> None:
    assert find(app, "azureml-models", "digits", "11").startswith(
        "missing: model 'digits:11' is not in this image"
    )


def test_a_version_with_two_entries_is_refused(app: Path) -> None:
    (app / "azureml-models" / "digits" / "10" / "second").touch()

    assert "must hold exactly one file or folder, it holds 2" in find(app, "", "digits")


def test_a_request_has_what_scripts_use_of_flask() -> None:
    request = AMLRequest(
        "POST",
        "/score",
        query="a=1&a=2&b=",
        headers=[("content-type", "application/json; charset=utf-8"), ("x-a", "1"), ("x-a", "2")],
        body=b'{"k": 1}',
        host="h:1",
    )

    assert request.url == "http://h:1/score?a=1&a=2&b="
    assert (request.args["a"], request.args.getlist("a"), request.args["b"]) == (
        "1",
        ["1", "2"],
        "",
    )
    assert (request.headers["X-A"], request.headers.getlist("x-a")) == ("1", ["1", "2"])
    assert dict(request.headers)["Content-Type"] == "application/json; charset=utf-8"
    assert request.headers.get("missing") is None
    assert (request.json, request.get_data(as_text=True)) == ({"k": 1}, '{"k": 1}')
    assert (request.mimetype, request.is_json, request.content_length) == (
        "application/json",
        True,
        8,
    )


def test_json_of_another_content_type_is_refused_or_none() -> None:
    request = AMLRequest("POST", "/score", body=b"1")

    assert (request.get_json(silent=True), request.get_json(force=True)) == (None, 1)
    with pytest.raises(ValueError, match="content type"):
        request.get_json()


def test_a_url_encoded_form_is_read() -> None:
    content_type = ("content-type", "application/x-www-form-urlencoded")
    request = AMLRequest("POST", "/score", headers=[content_type], body=b"a=1&b=%C3%A9")

    assert dict(request.form) == {"a": "1", "b": "é"}


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=40)), max_size=5))
def test_parts_come_out_byte_for_byte(parts: list[tuple[bool, bytes]]) -> None:
    body = b""
    for index, (is_file, content) in enumerate(parts):
        filename = b'; filename="f.bin"' if is_file else b""
        body += b'--X-1-X\r\nContent-Disposition: form-data; name="n%d"' % index + filename
        body += b"\r\n\r\n" + content + b"\r\n"
    body += b"--X-1-X--\r\n"

    fields, files = parse_multipart(body, "multipart/form-data; boundary=X-1-X")

    names = [f"n{index}" for index in range(len(parts))]
    assert [(name, part.read()) for name, part in files] == [
        (name, content) for name, (is_file, content) in zip(names, parts, strict=True) if is_file
    ]
    assert [name for name, _ in fields] == [
        name for name, (is_file, _) in zip(names, parts, strict=True) if not is_file
    ]


@given(st.binary(max_size=60))
def test_a_broken_multipart_body_is_a_value_error(noise: bytes) -> None:
    with pytest.raises(ValueError, match="multipart"):
        parse_multipart(noise, "multipart/form-data; boundary=not-in-the-noise-0123456789")


@pytest.mark.parametrize(
    ("response", "body", "content_type"),
    [
        (AMLResponse("é", 200), "é".encode(), "text/html; charset=utf-8"),
        (AMLResponse(b"\x00", 200), b"\x00", "text/html; charset=utf-8"),
        (AMLResponse(None, 200), b"{}", "application/json"),
        (AMLResponse([1], 200, json_str=True), b"[1]", "application/json"),
        (AMLResponse(["a", b"b"], 200), b"ab", "text/html; charset=utf-8"),
        (AMLResponse("x", 200, {"content-type": "text/plain"}), b"x", "text/plain"),
    ],
)
def test_a_response_holds_bytes_and_one_content_type(
    response: AMLResponse, body: bytes, content_type: str
) -> None:
    found = [value for name, value in response.headers.items() if name.lower() == "content-type"]

    assert (response.get_data(), found) == (body, [content_type])


def test_a_header_value_is_split_on_commas() -> None:
    response = AMLResponse("x", 200, {"X-A": "1, 2"}, run_function_failed=True)

    assert response.headers.items()[1:] == [
        ("x-ms-run-function-failed", "True"),
        ("X-A", "1"),
        ("X-A", "2"),
    ]
