"""What must stay secret is in no log, no command line, no answer, and in the database as a hash."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from foreign_registry import LOGIN, Running
from plant import Plant, plant, wait_for

from hub.demo.digits import Digits
from hub.services.registry_tokens import RegistryTokens
from simulator.fakes import ManualClock

FRAMES = 20
PATHS = (
    "/api/v1/models",
    "/api/v1/models/digits:1",
    "/api/v1/images",
    "/api/v1/images/digits-image:1",
    "/api/v1/devices",
    "/api/v1/devices/press-1",
    "/api/v1/deployments",
    "/api/v1/deployments/v1",
    "/api/v1/deployments/v1/devices",
    "/api/v1/telemetry",
    "/api/v1/telemetry/stats",
    "/openapi.json",
)


class Secrets:
    """Secrets by name; `found_in` tells which of them some bytes give away."""

    def __init__(self, **named: str) -> None:
        self._forms = {
            name: (secret.encode(), base64.b64encode(secret.encode()).rstrip(b"="))
            for name, secret in named.items()
        }

    def found_in(self, content: bytes) -> set[str]:
        return {name for name, forms in self._forms.items() if any(f in content for f in forms)}

    def found_below(self, *places: Path) -> dict[str, set[str]]:
        """Return what files give away, `keys/` and `admin.json` apart: they are meant to."""
        files = [file for place in places for file in _files(place)]
        assert files
        found = {str(file): self.found_in(file.read_bytes()) for file in files}
        return {name: secrets for name, secrets in found.items() if secrets}


def _files(place: Path) -> Iterable[Path]:
    if place.is_file():
        return [place]
    return [f for f in place.rglob("*") if f.is_file() and f.name != "admin.json"]


def processes(works: Plant) -> dict[int, bytes]:
    """Return the command lines of the plant's processes and of everything they started."""
    pids = [p.pid for p in works.processes.values()] + works.module_pids("press-1")
    known: dict[int, bytes] = {}
    while pids:
        pid = pids.pop()
        known[pid] = Path(f"/proc/{pid}/cmdline").read_bytes()
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            pids += [int(child) for child in children.read_text().split()]
    return known


def run_the_job(works: Plant, **hub_settings: str) -> tuple[str, str]:
    """Run the main job; return the claim's secret and the operator's token."""
    works.start_hub(**hub_settings)
    body: dict[str, Any] = {"deviceId": "press-1", "tags": {"site": "plant-7"}}
    claim = works.client.post("/api/v1/invitations", body)["claim"]
    home = str(works.home("press-1"))
    done = works.run("agent", "enroll", "--home", home, "--profile", "laptop", "--claim", claim)
    assert done.returncode == 0, done.stderr
    works.runtimes["press-1"] = "process"
    works.start_agent("press-1", RIMWARD_AGENT_LOG_LEVEL="debug")
    works.deploy("v1", works.package(works.register()))
    works.wait_deployed("v1", 1)
    works.feed_all("press-1", FRAMES)
    wait_for("the inferences", lambda: works.stored() >= FRAMES)
    secret = claim.rpartition(".")[2]
    return secret, json.loads(works.admin.read_text())["token"]


def answers(works: Plant) -> bytes:
    return json.dumps([works.client.get(path) for path in PATHS]).encode()


@pytest.mark.e2e
@pytest.mark.registry
def test_an_external_registrys_password_is_nowhere_but_in_memory(
    tmp_path: Path, digits: Digits, docker_registry: Running
) -> None:
    url = f"https://{LOGIN.username}:{LOGIN.password}@{docker_registry.authority}"
    with plant(tmp_path, digits, **{"registry-ca": str(docker_registry.ca_file)}) as works:
        claim, token = run_the_job(works, RIMWARD_REGISTRY=url, RIMWARD_LOG_LEVEL="debug")
        secrets = Secrets(
            password=LOGIN.password,
            login=f"{LOGIN.username}:{LOGIN.password}",
            claim=claim,
            token=token,
        )
        image = works.client.get("/api/v1/images/digits-image:1")
        running = processes(works)
        module = works.module_pids("press-1")[0]

        assert image["reference"].startswith(docker_registry.authority), "it was not used"
        assert {works.processes["hub"].pid, works.processes["press-1"].pid, module} <= set(running)
        assert secrets.found_in(b"\0".join(running.values())) == set()
        assert secrets.found_in(Path(f"/proc/{module}/environ").read_bytes()) == set()
        assert secrets.found_in(answers(works)) == set()
        # Logs, the hub's database and blobs, and everything a device keeps.
        assert secrets.found_below(tmp_path) == {}


@pytest.mark.e2e
def test_tokens_of_the_hubs_own_registry_are_nowhere_but_in_memory(
    tmp_path: Path, digits: Digits
) -> None:
    with plant(tmp_path, digits) as works:
        claim, token = run_the_job(works, RIMWARD_LOG_LEVEL="debug")
        key = (works.folder / "hub" / "keys" / "registry.key").read_bytes()
        # Every token begins with the same header.
        header = RegistryTokens(key, ManualClock()).issue("press-1", {})[0].partition(".")[0]
        secrets = Secrets(claim=claim, token=token, bearer=header)

        assert secrets.found_in(b"\0".join(processes(works).values())) == set()
        assert secrets.found_in(answers(works)) == set()
        assert secrets.found_below(tmp_path) == {}


@pytest.mark.e2e
@pytest.mark.registry
def test_errors_name_no_password(tmp_path: Path, digits: Digits, docker_registry: Running) -> None:
    secrets = Secrets(password="a-wrong-secret")
    url = f"https://{LOGIN.username}:a-wrong-secret@{docker_registry.authority}"
    with plant(tmp_path, digits, **{"registry-ca": str(docker_registry.ca_file)}) as works:
        works.start_hub(RIMWARD_REGISTRY=url, RIMWARD_LOG_LEVEL="debug")
        body = {"name": "digits-image", "models": [works.register()], "base": "host"}
        works.client.post("/api/v1/images", body)

        def failed() -> Any:
            image = works.client.get("/api/v1/images/digits-image:1")
            return image if image["state"] == "failed" else None

        image = wait_for("the refusal", failed)
        assert image["errorCode"] == "registry-refused"
        assert secrets.found_in(json.dumps(image).encode()) == set()
        assert secrets.found_below(tmp_path) == {}


@pytest.mark.e2e
@pytest.mark.parametrize(
    "setting",
    [
        {"RIMWARD_REGISTRY": "http://ann:a-wrong-secret@127.0.0.1"},
        {"RIMWARD_BROKER": "mqtt://ann:a-wrong-secret@127.0.0.1"},
        {"RIMWARD_BROKER": "mqtts://ann:a-wrong-secret@127.0.0.1"},
        {"RIMWARD_DATABASE": "mysql://ann:a-wrong-secret@127.0.0.1/hub"},
        {"RIMWARD_DATABASE": "postgresql://ann:a-wrong-secret@127.0.0.1:1/hub"},
        {"RIMWARD_DATABASE": "postgresql://ann:a-wrong-secret@127.0.0.1:port/hub"},
    ],
    ids=lambda setting: next(iter(setting.values())).replace("a-wrong-secret", "..."),
)
def test_a_refused_setting_does_not_repeat_its_password(
    tmp_path: Path, digits: Digits, setting: dict[str, str]
) -> None:
    with plant(tmp_path, digits) as works:
        data = str(tmp_path / "hub")
        done = works.run("hub", "hub", "up", "--data", data, "--https-port", "0", **setting)

    assert done.returncode in (2, 3)
    assert "error[" in done.stderr
    assert "a-wrong-secret" not in done.stdout + done.stderr
