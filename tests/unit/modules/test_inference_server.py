"""The server as clients see it: one process per story, real HTTP."""

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from inference_process import InferenceProcess, Reply

# One script whose run() does what the request says.
SCRIPT = """
import json, os, sys, time

calls = []

def init():
    print("init ran")

def run(data):
    wish = json.loads(data)
    calls.append(wish)
    kind = wish.get("do")
    if kind == "sleep":
        time.sleep(wish["seconds"])
    if kind == "wait":
        while not os.path.exists(wish["file"]):
            time.sleep(0.01)
    if kind == "raise":
        raise RuntimeError("secret detail")
    if kind == "exit":
        sys.exit(3)
    if kind == "set":
        return {1, 2}
    if kind == "none":
        return None
    if kind == "swallow":
        try:
            time.sleep(30)
        except Exception as error:
            return str(error)
    return {"echo": wish, "calls": len(calls)}
"""
SCRIPT_ERROR = "An unexpected error occurred in scoring script. Check the logs for more info."


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceProcess]:
    folder = tmp_path_factory.mktemp("echo")
    env = {"RIMWARD_MAX_REQUEST_BYTES": "100000", "SCORING_TIMEOUT_MS": "300"}
    with InferenceProcess(folder, SCRIPT, env=env | {"SERVICE_NAME": "echo"}) as process:
        yield process


def in_background(send: object, replies: list[Reply]) -> threading.Thread:
    assert callable(send)
    thread = threading.Thread(target=lambda: replies.append(send()))
    thread.start()
    return thread


def raw_exchange(server: InferenceProcess, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while block := connection.recv(65536):
            received += block
    return received


def test_the_root_says_healthy(server: InferenceProcess) -> None:
    reply = server.request("GET", "/")

    assert (reply.status, reply.body) == (200, b"Healthy")
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert "x-ms-run-function-failed" not in reply.headers


def test_run_gets_the_body_and_its_result_is_json(server: InferenceProcess) -> None:
    reply = server.score({"data": "é"})

    assert reply.status == 200
    assert reply.json["echo"] == {"data": "é"}
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-ms-run-function-failed"] == "False"
    assert float(reply.headers["x-ms-run-fn-exec-ms"]) >= 0
    assert reply.headers["x-ms-server-version"] == "rimward-inference/0.1.0"


def test_a_form_content_type_does_not_hide_the_body(server: InferenceProcess) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}

    assert server.score({"a": 1}, form).json["echo"] == {"a": 1}


def test_get_hands_the_query_to_run(server: InferenceProcess) -> None:
    assert server.request("GET", "/score?a=1&b=x").json["echo"] == {"a": 1, "b": "x"}


def test_nothing_returned_is_an_empty_object(server: InferenceProcess) -> None:
    assert server.score({"do": "none"}).body == b"{}"


def test_given_ids_come_back(server: InferenceProcess) -> None:
    reply = server.score({}, {"x-request-id": "A", "x-ms-client-request-id": "C", "TraceId": "T"})

    ids = ("x-request-id", "x-ms-request-id", "x-ms-client-request-id", "traceid")
    assert [reply.headers[name] for name in ids] == ["A", "C", "C", "T"]


def test_a_long_id_is_refused(server: InferenceProcess) -> None:
    reply = server.score({}, {"x-request-id": "i" * 101})

    assert reply.status == 431
    assert reply.message == "x-request-id must not exceed 100 characters"


def test_an_exception_never_reaches_the_client(server: InferenceProcess) -> None:
    reply = server.score({"do": "raise"})

    assert (reply.status, reply.json) == (500, {"message": SCRIPT_ERROR})
    assert reply.headers["x-ms-run-function-failed"] == "True"
    assert "x-ms-run-fn-exec-ms" not in reply.headers
    server.wait_for_log("RuntimeError: secret detail")


def test_exit_in_run_does_not_end_the_server(server: InferenceProcess) -> None:
    assert server.score({"do": "exit"}).json == {"message": SCRIPT_ERROR}
    assert server.score({}).status == 200


def test_a_result_that_is_not_json_is_an_internal_error(server: InferenceProcess) -> None:
    reply = server.score({"do": "set"})

    assert reply.status == 500
    assert reply.message == ("An unexpected internal error occurred. Check the logs for more info.")
    assert reply.headers["x-ms-run-function-failed"] == "False"


@pytest.mark.parametrize("kind", ["sleep", "swallow"])
def test_a_late_run_is_ended_and_the_next_one_runs(server: InferenceProcess, kind: str) -> None:
    reply = server.score({"do": kind, "seconds": 30})

    assert (reply.status, reply.message) == (500, "Scoring timeout after 300 ms")
    assert reply.headers["x-ms-run-function-failed"] == "True"
    assert server.score({}).status == 200


def test_a_body_that_is_not_text_is_refused(server: InferenceProcess) -> None:
    reply = server.request("POST", "/score", b"\xff")

    assert reply.status == 400
    assert reply.message.startswith("Input cannot be decoded as UTF-8: ")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_other_methods_are_not_allowed(server: InferenceProcess, method: str) -> None:
    reply = server.request(method, "/score")

    assert reply.status == 405
    assert reply.message == "The method is not allowed for the requested URL."


def test_head_is_not_allowed_on_score(server: InferenceProcess) -> None:
    assert server.request("HEAD", "/score").status == 405


def test_options_is_answered_without_run(server: InferenceProcess) -> None:
    reply = server.request("OPTIONS", "/score")

    assert (reply.status, reply.body) == (200, b"")
    assert reply.headers["x-ms-run-function-failed"] == "False"


@pytest.mark.parametrize("path", ["/score/", "/nope", "/health", "/score%00"])
def test_other_paths_are_not_found(server: InferenceProcess, path: str) -> None:
    reply = server.request("GET", path)

    assert reply.status == 404
    assert reply.message.startswith("The requested URL was not found on the server.")


def test_metadata_names_service_and_script(server: InferenceProcess) -> None:
    about = server.request("GET", "/metadata").json

    assert about["service"] == {"name": "echo", "version": "1.0"}
    assert about["engine"] == {"name": "entry-script", "script": "score.py", "onnxruntime": None}
    assert about["ready"] is True


def test_a_body_over_the_limit_is_refused_before_it_is_sent(server: InferenceProcess) -> None:
    head = b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: 100001\r\n\r\n"

    assert raw_exchange(server, head).startswith(b"HTTP/1.1 413 ")


def test_a_large_body_that_is_sent_anyway_is_refused(server: InferenceProcess) -> None:
    reply = server.request("POST", "/score", b" " * 300_000)

    assert reply.status == 413
    assert reply.message == "the request body is larger than 100000 bytes"


def test_a_chunked_body_is_read(server: InferenceProcess) -> None:
    assert server.request("POST", "/score", iter([b'{"a"', b": 1}"])).json["echo"] == {"a": 1}


def test_a_chunked_body_over_the_limit_is_refused(server: InferenceProcess) -> None:
    blocks = b"".join(b"4e20\r\n" + b" " * 20_000 + b"\r\n" for _ in range(6))
    head = b"POST /score HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"

    assert raw_exchange(server, head + blocks).startswith(b"HTTP/1.1 413 ")


def test_a_chunked_body_that_is_cut_off_is_not_scored(server: InferenceProcess) -> None:
    head = b"POST /score HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    calls = server.score({}).json["calls"]

    answer = raw_exchange(server, head + b"2\r\n{}\r\n")

    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert server.score({}).json["calls"] == calls + 1


def test_a_client_that_leaves_in_its_body_costs_nothing(server: InferenceProcess) -> None:
    head = b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nhalf"
    for _ in range(100):  # more than there are places
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(head)
    server.wait_for_active(0)

    assert server.score({}).status == 200
    assert "RSGIProtocolClosed" not in server.log


def test_garbage_is_refused_and_the_server_lives(server: InferenceProcess) -> None:
    assert raw_exchange(server, b"\x16\x03\x01 nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert server.score({}).status == 200


def test_health_answers_while_run_blocks(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with InferenceProcess(tmp_path, SCRIPT) as server:
        replies: list[Reply] = []
        blocked = in_background(lambda: server.score({"do": "wait", "file": str(gate)}), replies)

        live = server.request("GET", "/health/live")
        ready = server.request("GET", "/health/ready")
        gate.touch()
        blocked.join()

    assert (live.status, ready.status) == (200, 200)
    assert replies[0].status == 200


def test_more_than_64_waiting_requests_are_told_to_come_back(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    replies: list[Reply] = []
    with InferenceProcess(tmp_path, SCRIPT) as server:
        wish = {"do": "wait", "file": str(gate)}
        threads = [in_background(lambda: server.score(wish), replies) for _ in range(70)]
        while len(replies) < 6:
            assert all(reply.status == 503 for reply in replies)
            server.request("GET", "/health/live")
        gate.touch()
        for thread in threads:
            thread.join()

    refused = [reply for reply in replies if reply.status == 503]
    assert [reply.status for reply in replies].count(200) == 64
    assert {reply.headers["retry-after"] for reply in refused} == {"1"}


def test_sigterm_lets_the_requests_inside_finish(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    replies: list[Reply] = []
    with InferenceProcess(tmp_path, SCRIPT) as server:
        wish = {"do": "wait", "file": str(gate)}
        threads = [in_background(lambda: server.score(wish), replies) for _ in range(3)]
        server.wait_for_active(3)
        server.process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(0.3)
        gate.touch()
        for thread in threads:
            thread.join()
        code = server.process.wait(10)

    assert code == 0
    assert [reply.status for reply in replies] == [200] * 3
    assert sorted(reply.json["calls"] for reply in replies) == [1, 2, 3]


def test_sigterm_ends_an_idle_server_with_0_though_clients_stay_connected(tmp_path: Path) -> None:
    with InferenceProcess(tmp_path, SCRIPT) as server:
        idle = socket.create_connection(("127.0.0.1", server.port))
        half = socket.create_connection(("127.0.0.1", server.port))
        half.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf")
        code = server.terminate()
        idle.close()
        half.close()

    assert code == 0
    assert "panicked" not in server.log_path.read_text()


def test_sigterm_ends_a_server_whose_run_never_returns(tmp_path: Path) -> None:
    replies: list[Reply] = []
    with InferenceProcess(tmp_path, SCRIPT, env={"RIMWARD_DRAIN_MS": "200"}) as server:

        def send() -> Reply:
            try:
                return server.score({"do": "wait", "file": str(tmp_path / "never")})
            except OSError:
                return Reply(0, {}, b"")

        thread = in_background(send, replies)
        server.wait_for_active(1)
        code = server.terminate()
        thread.join()

    assert code == 0
    assert "stopped with 1 requests unanswered" in server.log_path.read_text()


NATIVE = """
import hashlib

def init():
    pass

def run(data):
    if data == "stick":
        hashlib.pbkdf2_hmac("sha256", b"native code that", b"sees no signal", 4_000_000)
    return data
"""


def test_a_run_stuck_in_native_code_is_answered_and_makes_the_module_unready(
    tmp_path: Path,
) -> None:
    with InferenceProcess(tmp_path, NATIVE, env={"SCORING_TIMEOUT_MS": "100"}) as server:
        reply = server.request("POST", "/score", b"stick")
        unready = server.request("GET", "/health/ready")
        server.wait_until("/health/ready", 200)
        after = server.request("POST", "/score", b"well")

    assert (reply.status, reply.message) == (500, "Scoring timeout after 100 ms")
    assert unready.json["reason"] == "run() is stuck past its time limit"
    assert after.json == "well"


def test_the_module_starts_under_its_other_name(tmp_path: Path) -> None:
    with InferenceProcess(tmp_path, SCRIPT, module="modules.inference") as server:
        reply = server.score({"a": 1})

    assert json.loads(reply.body)["echo"] == {"a": 1}
