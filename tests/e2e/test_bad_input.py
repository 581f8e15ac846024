"""What people get wrong: a clear sentence, a hint, an exit code, and nothing half-done."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from plant import Plant, free_port, plant

from hub.demo.digits import Digits

REFUSED, USAGE, LATER = 1, 2, 3


@pytest.fixture
def works(tmp_path: Path, digits: Digits) -> Iterator[Plant]:
    with plant(tmp_path, digits) as made:
        yield made


def rimward(works: Plant, *arguments: str, **extra: str) -> tuple[int, str]:
    done = works.run("hub", *arguments, RIMWARD_CONTEXT=str(works.admin), **extra)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


@pytest.mark.e2e
def test_a_port_in_use_is_named(works: Plant) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        data = str(works.folder / "other")
        code, said = rimward(works, "hub", "up", "--data", data, "--https-port", port)

    assert code == REFUSED
    assert f"error[port-in-use]: port {port}" in said
    assert "--https-port" in said


@pytest.mark.e2e
def test_the_mqtt_port_in_use_is_named(works: Plant) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        data = str(works.folder / "other")
        ports = ["--https-port", str(free_port()), "--mqtt-port", port]
        code, said = rimward(works, "hub", "up", "--data", data, *ports)

    assert code == REFUSED
    assert "error[port-in-use]" in said
    assert port in said


@pytest.mark.e2e
def test_a_damaged_database_is_named_with_the_way_out(works: Plant) -> None:
    data = works.folder / "hub"
    data.mkdir()
    (data / "hub.db").write_bytes(b"this is not a database, " * 1000)

    code, said = rimward(works, "hub", "up", "--data", str(data), "--https-port", "0")

    assert code == REFUSED
    assert "error[database-corrupt]" in said
    assert "hint: " in said
    assert (data / "hub.db").read_bytes().startswith(b"this is not")


@pytest.mark.e2e
def test_an_unreachable_database_is_named(works: Plant) -> None:
    url = f"postgresql+psycopg://nobody@127.0.0.1:{free_port()}/none"
    data = str(works.folder / "hub")

    code, said = rimward(works, "hub", "up", "--data", data, "--https-port", "0", "--database", url)

    assert code == LATER
    assert "error[database-unavailable]" in said


@pytest.mark.e2e
def test_an_unreachable_broker_is_named(works: Plant) -> None:
    broker, data = f"mqtts://127.0.0.1:{free_port()}", str(works.folder / "hub")

    code, said = rimward(
        works, "hub", "up", "--data", data, "--https-port", "0", "--broker", broker
    )

    assert code == LATER
    assert "error[broker-unreachable]" in said


@pytest.mark.e2e
def test_an_unreachable_hub_and_a_missing_context_are_told_apart(works: Plant) -> None:
    works.start_hub()
    assert works.client
    works.kill("hub")

    assert rimward(works, "model", "list")[0] == LATER
    assert "error[hub-unreachable]" in rimward(works, "model", "list")[1]
    works.admin.unlink()
    assert rimward(works, "model", "list")[0] == USAGE
    assert "error[file-missing]" in rimward(works, "model", "list")[1]


@pytest.mark.e2e
def test_a_running_hub_refuses_clearly_and_keeps_nothing(works: Plant) -> None:
    works.start_hub()
    assert works.client
    missing = rimward(works, "model", "register", "-n", "m", "-p", str(works.folder / "no.onnx"))
    named = rimward(works, "model", "register", "-n", "../m", "-p", str(works.digits.good))
    unknown = rimward(works, "image", "create", "-n", "i", "-m", "nothing:1")
    model = works.register()
    script = works.folder / "source"
    script.mkdir()
    (script / "score.py").write_text("def init():\n    pass\n")
    no_run = rimward(
        works, "image", "create", "-n", "i", "-m", model, "--source", str(script),
        "--entry-script", "score.py", "--base", "host",
    )  # fmt: skip
    condition = rimward(works, "deployment", "create", "d", "-t", "tags.site = ", "--image", "i:1")

    assert (missing[0], named[0], unknown[0], no_run[0], condition[0]) == (2, 2, 1, 1, 1)
    for said, code in (
        (missing[1], "file-missing"),
        (named[1], "id-invalid"),
        (unknown[1], "model-unknown"),
        (no_run[1], "script-invalid"),
        (condition[1], "condition-invalid"),
    ):
        assert f"error[{code}]" in said
        assert "hint: " in said
    assert [m["name"] for m in works.client.get("/api/v1/models")] == ["digits"]
    assert works.client.get("/api/v1/images") == []
    assert works.client.get("/api/v1/deployments") == []


@pytest.mark.e2e
def test_a_wrong_token_is_refused(works: Plant) -> None:
    works.start_hub()
    assert works.client
    context = json.loads(works.admin.read_text())
    works.admin.write_text(json.dumps({**context, "token": "rwo_wrong"}))

    code, said = rimward(works, "model", "list")

    assert code == REFUSED
    assert "error[token-invalid]" in said


@pytest.mark.e2e
def test_a_claim_works_once_and_a_foreign_hub_is_not_believed(works: Plant) -> None:
    works.start_hub()
    claim = works.client.post("/api/v1/invitations", {"deviceId": "press-1"})["claim"]
    first, second = works.folder / "first", works.folder / "second"

    def enroll(home: Path, token: str) -> tuple[int, str]:
        done = works.run(
            "agent", "enroll", "--home", str(home), "--profile", "laptop", "--claim", token
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr

    forged = ".".join([*claim.split(".")[:2], "0" * 64, claim.split(".")[3]])
    assert "error[certificate-invalid]" in enroll(second, forged)[1]
    assert "error[claim-invalid]" in enroll(second, "nonsense")[1]
    assert enroll(first, claim)[0] == 0
    assert "error[claim-invalid]" in enroll(second, claim)[1]
    assert "error[already-enrolled]" in enroll(first, claim)[1]
    assert not (second / "identity" / "enrolled.json").exists()
