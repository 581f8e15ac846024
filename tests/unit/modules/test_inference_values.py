"""The pure parts: settings, ids, input reading, tensors, answers, admission."""

import json
from inspect import Parameter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.inference.engines.engine import TensorSpec
from modules.inference.engines.tensors import to_tensor, to_tensors
from modules.inference.errors import BadInputError, StartupCode, StartupError
from modules.inference.exchange import ScoreRequest, answer_for
from modules.inference.scorers.no_code import named_inputs
from modules.inference.scorers.script_input import as_arguments, as_text, query_values
from modules.inference.settings import Settings, read_settings
from modules.inference.web.admission import Admission, Place
from modules.inference.web.tracing import TraceIds, trace_ids

FLOATS = TensorSpec("x", np.dtype(np.float32), (None, 2))


def post(body: bytes, content_type: str = "application/json") -> ScoreRequest:
    return ScoreRequest("POST", "/score", "", (("content-type", content_type),), body)


def test_an_empty_environment_gives_the_defaults() -> None:
    assert read_settings({"SERVICE_NAME": ""}) == Settings()


def test_every_variable_is_read() -> None:
    environment = {
        "AZUREML_MODEL_DIR": "/m",
        "AML_APP_ROOT": "/a",
        "AZUREML_SOURCE_DIRECTORY": "src",
        "AZUREML_ENTRY_SCRIPT": "score.py",
        "SCORING_TIMEOUT_MS": "300",
        "SERVICE_NAME": "digits",
        "SERVICE_VERSION": "2",
        "RIMWARD_MODULE_HOST": "0.0.0.0",
        "RIMWARD_MODULE_PORT": "80",
        "RIMWARD_THREADS": "4",
        "RIMWARD_MAX_REQUEST_BYTES": "1000",
        "RIMWARD_GOLDEN_FILE": "/g",
        "RIMWARD_DRAIN_MS": "500",
    }

    assert read_settings(environment) == Settings(
        model_dir=Path("/m"),
        app_root=Path("/a"),
        source_directory="src",
        entry_script="score.py",
        scoring_timeout_ms=300,
        service_name="digits",
        service_version="2",
        host="0.0.0.0",
        port=80,
        threads=4,
        max_request_bytes=1000,
        golden_file=Path("/g"),
        drain_ms=500,
    )


@pytest.mark.parametrize("text", ["0", "65536", "-1", "1e3", "x", "٣", "9" * 5000])
def test_a_port_out_of_bounds_is_refused(text: str) -> None:
    with pytest.raises(StartupError, match="RIMWARD_MODULE_PORT") as found:
        read_settings({"RIMWARD_MODULE_PORT": text})

    assert found.value.code is StartupCode.SETTING_INVALID


@pytest.mark.parametrize(
    ("given_ids", "expected"),
    [
        (("", "", ""), ("new", "new", "")),
        (("A", "", ""), ("A", "A", "")),
        (("", "B", ""), ("new", "B", "B")),
        (("", "", "C"), ("new", "C", "C")),
        (("A", "B", "C"), ("A", "B", "C")),
    ],
)
def test_ids_follow_the_table(
    given_ids: tuple[str, str, str], expected: tuple[str, str, str]
) -> None:
    names = ("x-request-id", "x-ms-request-id", "x-ms-client-request-id")
    headers = {name: value for name, value in zip(names, given_ids, strict=True) if value}

    assert trace_ids(headers, lambda: "new") == TraceIds(*expected)


@pytest.mark.parametrize("name", ["x-request-id", "x-ms-request-id", "x-ms-client-request-id"])
def test_an_id_over_100_characters_is_refused_with_431(name: str) -> None:
    with pytest.raises(BadInputError, match=f"{name}.*must not exceed 100 characters") as found:
        trace_ids({name: "i" * 101}, lambda: "new")

    assert found.value.status == 431


def test_a_query_becomes_json_values() -> None:
    assert query_values("a=1&b=[1,2]&c=a&d=null&e=x&e=2&f=") == {
        "a": 1,
        "b": [1, 2],
        "c": "a",
        "d": None,
        "e": ["x", 2],
        "f": "",
    }


def test_get_hands_the_query_on_as_json_text() -> None:
    assert as_text(ScoreRequest("GET", "/score", "a=1", (), b"")) == '{"a": 1}'


@given(st.text())
def test_post_hands_the_body_on_as_text(text: str) -> None:
    assert as_text(post(text.encode(errors="replace"))) == text.encode(errors="replace").decode()


def test_a_body_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(BadInputError, match="Input cannot be decoded as UTF-8: "):
        as_text(post(b"\xff"))


PARAMETERS = [
    Parameter("num", Parameter.POSITIONAL_OR_KEYWORD),
    Parameter("factor", Parameter.POSITIONAL_OR_KEYWORD, default=2),
]


def test_a_schema_takes_parameters_by_name_and_their_defaults() -> None:
    assert as_arguments(post(b'{"num": 1, "other": 3}'), PARAMETERS) == {"num": 1, "factor": 2}


@pytest.mark.parametrize(
    ("body", "content_type", "status", "message"),
    [
        (b"", "application/json", 400, "POST body is empty. Expecting a JSON dictionary."),
        (b"{", "application/json", 400, "POST body could not be decoded as JSON: "),
        (b"\xff", "application/json", 400, "POST body could not be decoded as JSON: "),
        (b"[" * 100_000, "application/json", 400, "POST body could not be decoded as JSON: "),
        (b"[1]", "application/x+json", 400, "POST body should be a JSON dictionary."),
        (b"{}", "application/json; charset=utf-8", 400, "not provided for the 'num' parameter."),
        (b"{}", "text/plain", 415, "Expects Content-Type to be application/json"),
    ],
)
def test_bad_input_to_a_schema_is_named(
    body: bytes, content_type: str, status: int, message: str
) -> None:
    with pytest.raises(BadInputError) as found:
        as_arguments(post(body, content_type), PARAMETERS)

    assert (found.value.status, message in str(found.value)) == (status, True)


@given(st.lists(st.lists(st.floats(width=32), min_size=2, max_size=2), min_size=1, max_size=5))
def test_rows_become_a_tensor_and_back(rows: list[list[float]]) -> None:
    np.testing.assert_array_equal(to_tensor(rows, FLOATS), np.array(rows, dtype=np.float32))


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ([1, 2], r"input 'x' has 1 dimensions, the model takes 2: \[any, 2\]"),
        ([[1, 2, 3]], r"input 'x' has shape \[1, 3\], the model takes \[any, 2\]"),
        ([[1, 2], [1]], "input 'x' has rows of different lengths"),
        ([["a", "b"]], "input 'x' holds values that do not convert to float32"),
        ([[None, 1]], "do not convert"),
        ([[{}, 1]], "do not convert"),
        ("text", "has 0 dimensions"),
        (None, "has 0 dimensions"),
        ([], "has 1 dimensions"),
    ],
)
def test_a_value_that_does_not_fit_is_named(value: Any, sentence: str) -> None:
    with pytest.raises(BadInputError, match=sentence):
        to_tensor(value, FLOATS)


@pytest.mark.parametrize(
    ("dtype", "value", "fits"),
    [
        ("int8", 127, True),
        ("int8", 128, False),
        ("uint8", -1, False),
        ("int64", 1.5, False),
        ("int64", 2**63 - 1, True),
        ("int64", 2**63, False),
        ("int64", 2**70, False),
        ("float32", 1e300, True),
        ("bool", True, True),
        ("bool", 1, False),
        ("object", "text", True),
        ("object", 1, False),
    ],
)
def test_only_values_that_the_type_can_hold_convert(dtype: str, value: Any, *, fits: bool) -> None:
    spec = TensorSpec("x", np.dtype(dtype), (1,))
    try:
        to_tensor([value], spec)
        converted = True
    except BadInputError:
        converted = False

    assert converted is fits


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
        max_leaves=10,
    )
)
def test_any_json_becomes_a_tensor_or_bad_input(value: Any) -> None:
    try:
        shape = to_tensor(value, FLOATS).shape
    except BadInputError:
        return
    assert shape[1:] == (2,)


def test_missing_and_unknown_inputs_are_named() -> None:
    with pytest.raises(BadInputError, match="no input 'y'; its inputs are 'x'"):
        to_tensors({"y": 1, "x": 1}, (FLOATS,))
    with pytest.raises(BadInputError, match="input 'x' is missing"):
        to_tensors({}, (FLOATS,))


def test_data_stands_for_the_only_input() -> None:
    assert named_inputs({"data": 1}, (FLOATS,)) == {"x": 1}
    assert named_inputs({"x": 1}, (FLOATS,)) == {"x": 1}
    with pytest.raises(BadInputError, match="'data' is not enough"):
        named_inputs({"data": 1}, (FLOATS, TensorSpec("y", np.dtype(np.float32), ())))


@pytest.mark.parametrize(
    ("output", "body"),
    [
        (None, b"{}"),
        ("text", b'"text"'),
        ([1.5, float("nan"), float("inf")], b"[1.5, NaN, Infinity]"),
        ((1, 2), b"[1, 2]"),
        ({"é": 1}, b'{"\\u00e9": 1}'),
    ],
)
def test_results_are_sent_as_json(output: object, body: bytes) -> None:
    answer = answer_for(output, 0.5)

    assert (answer.status, answer.body) == (200, body)
    assert dict(answer.headers) == {
        "content-type": "application/json",
        "x-ms-run-function-failed": "False",
        "x-ms-run-fn-exec-ms": "0.500",
    }


@pytest.mark.parametrize("output", [np.float32(1), np.zeros(2), b"bytes", {1}, (x for x in "a")])
def test_what_json_cannot_hold_is_an_error(output: object) -> None:
    with pytest.raises(TypeError):
        answer_for(output, 0.0)


@given(st.lists(st.lists(st.integers(min_value=1, max_value=60), max_size=4), max_size=8))
def test_admission_never_exceeds_its_bounds_and_gets_everything_back(
    requests: list[list[int]],
) -> None:
    admission = Admission(requests=4, limit_bytes=100)
    inside: list[Place] = []
    held = 0
    for sizes in requests:
        place = admission.enter()
        assert (place is None) == (len(inside) == 4)
        if place is None:
            continue
        inside.append(place)
        for size in sizes:
            taken = place.take(size)
            assert taken == (held + size <= 100)
            held += size if taken else 0
    for place in inside:
        place.leave()

    assert admission.active == 0
    again = admission.enter()
    assert again is not None
    assert again.take(100)


def test_metadata_describes_free_dimensions_and_text() -> None:
    spec = TensorSpec("x", np.dtype(object), (None, 2))

    assert json.dumps(spec.describe()) == '{"name": "x", "dtype": "string", "shape": [-1, 2]}'
