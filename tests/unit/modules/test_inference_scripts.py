"""Entry scripts as Azure ML v1 documents them, and models served without one."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from inference_process import MODULES, InferenceProcess

Digits = tuple[list[list[float]], list[int]]

RAW_HTTP = """
from azureml.contrib.services.aml_request import AMLRequest, rawhttp
from azureml.contrib.services.aml_response import AMLResponse

def init():
    print("This is init()")

@rawhttp
def run(request):
    if request.method == "GET":
        return AMLResponse(str.encode(request.full_path), 200)
    if request.method == "POST" and request.files:
        image = request.files["image"]
        return AMLResponse(image.read(), 201, {"X-Name": image.filename, "x-request-id": "mine"})
    if request.method == "POST":
        body = bytearray(request.get_data(False))
        body.reverse()
        return AMLResponse(bytes(body), 200, {"Content-Type": "application/octet-stream"})
    if request.method == "OPTIONS":
        return AMLResponse({"a": [1]}, 503, json_str=True)
    return {"method": request.method}
"""


@pytest.fixture(scope="module")
def raw_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceProcess]:
    with InferenceProcess(tmp_path_factory.mktemp("raw"), RAW_HTTP) as process:
        yield process


def test_rawhttp_answers_binary_bodies_as_they_are(raw_server: InferenceProcess) -> None:
    reply = raw_server.request("POST", "/score", bytes(range(256)))

    assert (reply.status, reply.body) == (200, bytes(reversed(range(256))))
    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.headers["x-ms-run-function-failed"] == "False"


def test_rawhttp_sees_get_with_its_path(raw_server: InferenceProcess) -> None:
    reply = raw_server.request("GET", "/score?a=1")

    assert (reply.body, reply.headers["content-type"]) == (
        b"/score?a=1",
        "text/html; charset=utf-8",
    )


def test_rawhttp_gets_uploaded_files_and_cannot_set_the_request_id(
    raw_server: InferenceProcess,
) -> None:
    part = b'--B\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    body = part + b"\x89PNG\r\n\r\n\x00--B\r\n--B--\r\n"
    content_type = {"content-type": "multipart/form-data; boundary=B", "x-request-id": "given"}

    reply = raw_server.request("POST", "/score", body, content_type)

    assert (reply.status, reply.body) == (201, b"\x89PNG\r\n\r\n\x00--B")
    assert (reply.headers["x-name"], reply.headers["x-request-id"]) == ("a.png", "given")


def test_rawhttp_handles_options_itself_and_a_5xx_counts_as_failed(
    raw_server: InferenceProcess,
) -> None:
    reply = raw_server.request("OPTIONS", "/score")

    assert (reply.status, reply.json) == (503, {"a": [1]})
    assert reply.headers["x-ms-run-function-failed"] == "True"


@pytest.mark.parametrize(
    ("script", "body", "answer"),
    [
        (
            (
                "import asyncio\nasync def init(): await asyncio.sleep(0)\n"
                "async def run(data):\n    await asyncio.sleep(0)\n    return data + '!'\n"
            ),
            "a",
            "a!",
        ),
        (
            (
                "import asyncio\ndef init(): pass\nasync def inner(): return 1\n"
                "def run(data): return asyncio.run(inner())\n"
            ),
            "",
            1,
        ),
        (
            "def init(): pass\ndef run(data, request_headers): return request_headers['X-Mine']\n",
            "",
            "yes",
        ),
        (
            (
                "import sys, types\ndriver_module = types.ModuleType('inner')\n"
                "driver_module.run = lambda data: 'inner'\n"
                "def init(): pass\ndef run(data): return 'outer'\n"
            ),
            "",
            "inner",
        ),
        (
            (
                "import azureml_inference_server_http.api.aml_request as r\n"
                "from azureml_inference_server_http.api.aml_response import AMLResponse\n"
                "def init(): pass\n@r.rawhttp\n"
                "def run(request): return AMLResponse('\"new\"', 200)\n"
            ),
            "",
            "new",
        ),
        (
            (
                "import json\nfrom dataclasses import dataclass\n"
                "@dataclass\nclass Point:\n    x: 'int'\n"
                "def init(): pass\ndef run(data): return json.dumps([Point(1).x])\n"
            ),
            "",
            "[1]",
        ),
    ],
    ids=["async", "asyncio.run", "request_headers", "driver", "new-names", "json-in-json"],
)
def test_scripts_of_every_style_run(tmp_path: Path, script: str, body: str, answer: object) -> None:
    with InferenceProcess(tmp_path, script) as server:
        reply = server.request("POST", "/score", body, {"x-mine": "yes"})

    assert (reply.status, reply.json) == (200, answer)


def test_a_late_asynchronous_run_is_ended_and_the_next_one_runs(tmp_path: Path) -> None:
    script = (
        "import asyncio\ndef init(): pass\n"
        "async def run(data):\n    await asyncio.sleep(30 if data else 0)\n    return 1\n"
    )
    with InferenceProcess(tmp_path, script, env={"SCORING_TIMEOUT_MS": "100"}) as server:
        late = server.request("POST", "/score", "late")
        well = server.request("POST", "/score", "")

    assert late.message == "Scoring timeout after 100 ms"
    assert well.json == 1


def test_the_sample_serves_digits(tmp_path: Path, digits_dir: Path, digits: Digits) -> None:
    script = (MODULES / "samples" / "digits" / "score.py").read_text()
    rows, labels = digits
    with InferenceProcess(tmp_path, script, digits_dir) as server:
        reply = server.score({"data": rows})
        about = server.request("GET", "/metadata").json

    assert reply.json["label"] == labels
    assert [row.index(max(row)) for row in reply.json["probabilities"]] == labels
    assert all(sum(row) == pytest.approx(1, abs=1e-4) for row in reply.json["probabilities"])
    assert about["engine"]["onnxruntime"] is not None


def test_scripts_find_their_model_and_modules_beside_them(tmp_path: Path, digits_dir: Path) -> None:
    script = (
        "import helper\nfrom azureml.core.model import Model\n"
        "def init():\n    global path\n    path = Model.get_model_path('digits')\n"
        "def run(data): return [path, helper.NAME]\n"
    )
    source = tmp_path / "src" / "deep"
    source.mkdir(parents=True)
    (source / "score.py").write_text(script)
    (source / "helper.py").write_text("NAME = 'beside'\n")
    env = {"AZUREML_SOURCE_DIRECTORY": "src", "AZUREML_ENTRY_SCRIPT": "deep/score.py"}
    with InferenceProcess(tmp_path, None, digits_dir, env=env) as server:
        reply = server.score({})

    assert reply.json == [str(digits_dir / "digits.onnx"), "beside"]


@pytest.fixture(scope="module")
def no_code(
    tmp_path_factory: pytest.TempPathFactory, digits_dir: Path
) -> Iterator[InferenceProcess]:
    with InferenceProcess(tmp_path_factory.mktemp("nocode"), None, digits_dir) as process:
        yield process


def test_a_model_is_served_without_code(no_code: InferenceProcess, digits: Digits) -> None:
    rows, labels = digits

    by_data = no_code.score({"data": rows})
    by_name = no_code.score({"input": rows})

    assert by_data.json["label"] == labels
    assert [len(row) for row in by_data.json["probabilities"]] == [10] * len(rows)
    assert by_name.json == by_data.json


def test_metadata_of_a_model_without_code(no_code: InferenceProcess) -> None:
    about = no_code.request("GET", "/metadata").json

    assert about["engine"]["name"] == "onnxruntime"
    assert about["inputs"] == [{"name": "input", "dtype": "float32", "shape": [-1, 64]}]
    assert about["outputs"] == [
        {"name": "label", "dtype": "int64", "shape": [-1]},
        {"name": "probabilities", "dtype": "float32", "shape": [-1, 10]},
    ]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "POST body is empty. Expecting a JSON dictionary."),
        (b"{", "POST body could not be decoded as JSON: "),
        (b"[]", "POST body should be a JSON dictionary."),
        (b"{}", "input 'input' is missing"),
        (b'{"data": [1, 2]}', "input 'input' has 1 dimensions, the model takes 2: [any, 64]"),
        (b'{"data": [[1, 2]]}', "input 'input' has shape [1, 2], the model takes [any, 64]"),
        (b'{"data": [["a"]]}', "input 'input' has shape [1, 1]"),
        (b'{"data": [[1], [1, 2]]}', "input 'input' has rows of different lengths"),
        (b'{"wrong": 1}', "the model has no input 'wrong'; its inputs are 'input'"),
    ],
)
def test_bad_input_to_a_model_without_code_is_named(
    no_code: InferenceProcess, body: bytes, message: str
) -> None:
    reply = no_code.request("POST", "/score", body, {"content-type": "application/json"})

    assert reply.status == 400
    assert reply.message.startswith(message)
    assert reply.headers["x-ms-run-function-failed"] == "False"


def test_a_classifier_with_class_maps_answers_the_same_way(
    tmp_path: Path, digits_zipmap_dir: Path, digits: Digits
) -> None:
    rows, labels = digits
    with InferenceProcess(tmp_path, None, digits_zipmap_dir) as server:
        reply = server.score({"data": rows})

    assert reply.json["label"] == labels
    assert [len(row) for row in reply.json["probabilities"]] == [10] * len(rows)


def golden_file(folder: Path, digits: Digits, label: int) -> dict[str, str]:
    sample = {"input": {"data": digits[0][:1]}, "expected": {"label": [label]}}
    path = folder / "golden.json"
    path.write_text(json.dumps({"samples": [sample]}))
    return {"RIMWARD_GOLDEN_FILE": str(path)}


def test_golden_samples_that_agree_make_the_module_ready(
    tmp_path: Path, digits_dir: Path, digits: Digits
) -> None:
    env = golden_file(tmp_path, digits, digits[1][0])
    with InferenceProcess(tmp_path, None, digits_dir, env=env) as server:
        assert server.request("GET", "/health/ready").json == {"status": "ready"}


def test_golden_samples_that_disagree_keep_the_module_unready_and_say_why(
    tmp_path: Path, digits_dir: Path, digits: Digits
) -> None:
    server = InferenceProcess(tmp_path, None, digits_dir, env=golden_file(tmp_path, digits, 11))
    server.launch()
    try:
        server.wait_for_log("golden samples disagree")
        reply = server.wait_until("/health/ready", 503)
        home = server.request("GET", "/")
    finally:
        server.__exit__()

    assert reply.json["reason"] == (
        "1 of 1 golden samples disagree: sample 0: $.label[0] is 0, expected 11"
    )
    assert home.status == 200


def test_before_init_is_done_the_module_is_live_and_not_ready(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    script = (
        "import os, time\ndef init():\n"
        f"    while not os.path.exists({str(gate)!r}): time.sleep(0.01)\n"
        "def run(data): return 1\n"
    )
    server = InferenceProcess(tmp_path, script)
    server.launch()
    try:
        server.wait_until("/health/live", 200)
        ready, home = server.request("GET", "/health/ready"), server.request("GET", "/")
        early = server.score({})
        gate.touch()
        server.wait_until("/health/ready", 200)
        late = server.score({})
    finally:
        server.__exit__()

    assert (ready.status, ready.json["reason"]) == (503, "init() has not finished")
    assert (home.status, early.status, late.status) == (503, 503, 200)
    assert early.headers["retry-after"] == "1"


def refusal(server: InferenceProcess) -> tuple[int, list[str]]:
    server.launch()
    code = server.process.wait(30)
    server.__exit__()
    return code, server.log.splitlines()


OK_SCRIPT = "def init(): pass\ndef run(data): return 1\n"


@pytest.mark.parametrize(
    ("script", "env", "sentence"),
    [
        (None, {}, "error[model-unclear]: neither an entry script nor a model folder is named"),
        (
            None,
            {"AZUREML_ENTRY_SCRIPT": "no.py"},
            "error[entry-script-missing]: entry script '{folder}/no.py' does not exist",
        ),
        (
            OK_SCRIPT,
            {"AZUREML_MODEL_DIR": "nowhere"},
            "error[model-dir-missing]: model folder 'nowhere' does not exist",
        ),
        (
            "def run(data): return 1\n",
            {},
            "error[entry-script-invalid]: entry script '{folder}/score.py' does not define init()",
        ),
        (
            "def init(): pass\n",
            {},
            "error[entry-script-invalid]: entry script '{folder}/score.py' does not define run()",
        ),
        (
            "def init(): pass\ndef run(): return 1\n",
            {},
            "error[entry-script-invalid]: run() needs to accept an argument for input data.",
        ),
        (
            "def init(): pass\ndef run(*data): return 1\n",
            {},
            (
                "error[entry-script-invalid]: run() cannot accept positional-only arguments, *args,"
                " or **kwargs."
            ),
        ),
        (
            "import no_such_package\n",
            {},
            (
                "error[entry-script-invalid]: importing entry script '{folder}/score.py' raised"
                " ModuleNotFoundError: No module named 'no_such_package'"
            ),
        ),
        (
            "def init(): raise ValueError('no weights')\ndef run(data): return 1\n",
            {},
            "error[init-failed]: init() of '{folder}/score.py' raised ValueError: no weights",
        ),
        (
            OK_SCRIPT,
            {"RIMWARD_MODULE_PORT": "70000"},
            (
                "error[setting-invalid]: 'RIMWARD_MODULE_PORT' is '70000', not a whole number"
                " from 1 to 65535"
            ),
        ),
        (
            OK_SCRIPT,
            {"RIMWARD_MODULE_HOST": "198.51.100.1"},
            (
                "error[address-unusable]: cannot listen on '198.51.100.1' port {port}: Cannot"
                " assign requested address"
            ),
        ),
        (
            OK_SCRIPT,
            {"RIMWARD_GOLDEN_FILE": "none.json"},
            (
                "error[golden-file-invalid]: golden samples 'none.json' cannot be used: No"
                " such file or directory"
            ),
        ),
    ],
)
def test_a_start_that_cannot_succeed_ends_with_one_sentence_and_a_hint(
    tmp_path: Path, script: str | None, env: dict[str, str], sentence: str
) -> None:
    server = InferenceProcess(tmp_path, script, env=env)

    code, lines = refusal(server)

    assert code == 1
    assert lines[-2] == sentence.format(folder=tmp_path, port=server.port)
    assert lines[-1].startswith("hint: ")


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    with InferenceProcess(tmp_path, OK_SCRIPT) as first:
        code, lines = refusal(InferenceProcess(tmp_path / "second", OK_SCRIPT, port=first.port))

    assert code == 1
    assert lines[0] == (
        f"error[port-in-use]: '127.0.0.1' port {first.port} is in use by another process"
    )


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a model")

    code, lines = refusal(InferenceProcess(tmp_path, None, tmp_path))

    assert code == 1
    assert lines[-2].startswith("error[model-invalid]: onnxruntime cannot load 'broken.onnx': ")


def test_two_models_without_a_script_are_refused(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / name).touch()

    code, lines = refusal(InferenceProcess(tmp_path, None, tmp_path))

    assert code == 1
    assert lines[-2].endswith("holds 2 .onnx files: 'a.onnx', 'b.onnx'")
