"""The main job, step by step. Every step ends with what it promised, or raises StoryError."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from hub.cli.client import HubClient, load_context
from hub.cli.deployments import simple_manifest
from hub.cli.devices import every
from hub.cli.images import follow, pack
from hub.demo import digits
from hub.demo.engine import answers
from hub.demo.processes import Child, Processes, StoryError, say_to
from hub.demo.screen import Screen
from protocol.errors import FleetError

SIMULATED = 20
FRAMES_EACH = 100
AFTERWARDS = 10
MODULE = "digits"
_SITE = "plant-7"
_REAL = {
    "lab-1": ("laptop", "process"),
    "press-1": ("industrial-pc", "process"),
    "press-2": ("generic-x86", "process"),
}
_CONTAINER = ("box-1", ("industrial-pc", "docker"))


@dataclass(slots=True)
class Stage:
    """Everything the steps share."""

    folder: Path
    screen: Screen
    processes: Processes
    client: HubClient = field(init=False)
    digits: digits.Digits = field(init=False)
    devices: dict[str, tuple[str, str]] = field(default_factory=dict)
    agents: dict[str, Child] = field(default_factory=dict)
    cables: list[Child] = field(default_factory=list)
    sent: dict[str, list[str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    refusal: dict[str, Any] = field(default_factory=dict)
    base: str = ""

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Show and time one step."""
        started = perf_counter()
        with self.screen.step(title):
            yield
        self.seconds[title] = round(perf_counter() - started, 2)

    def home(self, device: str) -> Path:
        """Return the folder of a device's agent."""
        place = "fleet" if self.devices[device][1] == "simulated" else "devices"
        return self.folder / place / device

    def feed(self, frames: int) -> None:
        """Give every device its next images, as a camera would: files, moved into place."""
        names = sorted(self.digits.frames)
        for number, device in enumerate(sorted(self.devices)):
            inputs = self.home(device) / "inputs" / MODULE
            inputs.mkdir(parents=True, exist_ok=True)
            given = self.sent.setdefault(device, [])
            for index in range(len(given), len(given) + frames):
                # Devices begin at different places of the held-out images and wrap around.
                name = names[(number * 37 + index) % len(names)]
                hidden = inputs / f".{name}.json"
                hidden.write_bytes(self.digits.frames[name])
                hidden.replace(inputs / f"{index:05d}.{name}.json")
                given.append(f"{index:05d}.{name}")

    @property
    def total_sent(self) -> int:
        """Images given to all devices so far."""
        return sum(map(len, self.sent.values()))


def run(stage: Stage) -> None:
    """Tell the whole story."""
    with stage.step("start a hub"):
        _start_hub(stage)
    with stage.step("train on handwritten digits"):
        stage.digits = digits.make(stage.folder / "models")
    with stage.step("register the model"):
        _register(stage, stage.digits.good)
    with stage.step("package it, without Docker"):
        image = _package(stage, "digits:1")
    with stage.step("enrol devices"):
        _enrol(stage)
    with stage.step("deploy by target condition"):
        _deploy(stage, "digits-1", image, waves="")
    with stage.step("infer; kill one agent, cut one off"):
        _infer(stage)
    with stage.step("deploy a bad version 2"):
        _deploy_bad(stage)
    with stage.step("go on with version 1"):
        _go_on(stage)


def _start_hub(stage: Stage) -> None:
    data = stage.folder / "hub"
    stage.processes.start(
        "hub", "hub", ["hub", "up", "--data", str(data), "--https-port", "0", "--mqtt-port", "0"]
    )
    admin = data / "admin.json"
    stage.processes.wait_for("the hub", 30, admin.exists)
    stage.client = HubClient(load_context(admin))
    stage.processes.wait_for("the hub's answer", 10, lambda: _ready(stage.client))


def _ready(client: HubClient) -> bool:
    try:
        client.get("/api/v1/models")
    except FleetError as error:
        if error.retryable:
            return False
        raise
    return True


def _register(stage: Stage, path: Path) -> dict[str, Any]:
    with path.open("rb") as file, stage.screen.bytes(path.stat().st_size) as moved:
        digest = stage.client.upload(file, moved)
    body = {
        "name": "digits",
        "digest": digest,
        "filename": "model.onnx",
        "framework": "onnx",
        "description": "8x8 handwritten digits",
        "golden": stage.digits.golden,
    }
    model: dict[str, Any] = stage.client.post("/api/v1/models", body)
    return model


def _package(stage: Stage, model: str) -> str:
    """Package a model on the base that was chosen for the first one."""
    if stage.base == "":
        stage.base = "debian" if answers() else "host"
        if stage.base == "host":
            stage.notes.append("no container engine answers: the docker device is left out")
        else:
            try:
                image = _build(stage, model, stage.base)
            except FleetError as error:
                # Not Debian, no packages, another Python: processes need no base layer.
                stage.notes.append(f"the docker device is left out: {error}")
                stage.base = "host"
            else:
                stage.devices[_CONTAINER[0]] = _CONTAINER[1]
                return image
    return _build(stage, model, stage.base)


def _build(stage: Stage, model: str, base: str) -> str:
    source = pack(Path(__file__).parents[2] / "modules" / "samples" / "digits")
    body = {
        "name": "digits-image",
        "models": [model],
        "source": stage.client.upload(source, lambda _count: None),
        "entryScript": "score.py",
        "pythonVersion": f"{sys.version_info.major}.{sys.version_info.minor}",
        "base": base,
    }
    image = follow(stage.client, stage.client.post("/api/v1/images", body), stage.screen.say)
    return f"{image['name']}:{image['version']}"


def _enrol(stage: Stage) -> None:
    stage.devices |= _REAL
    for device, (profile, _) in sorted(stage.devices.items()):
        claim = _invite(stage, device)
        home = ["--home", str(stage.home(device))]
        stage.processes.run(
            f"enroll-{device}",
            "agent",
            ["enroll", *home, "--profile", profile, "--claim", "-"],
            claim,
        )
        _start_agent(stage, device, by_cable=device == "lab-1")
    simulated = [f"sim-{number:02d}" for number in range(1, SIMULATED + 1)]
    rows = [{"deviceId": name, "claim": _invite(stage, name)} for name in simulated]
    claims = stage.folder / "claims"
    claims.write_text("".join(json.dumps(row) + "\n" for row in rows))
    claims.chmod(0o600)
    fleet = ["--home", str(stage.folder / "fleet"), "--claims", str(claims)]
    stage.agents["fleet"] = stage.processes.start("fleet", "simulator", fleet)
    stage.devices |= dict.fromkeys(simulated, ("simulated", "simulated"))
    wanted = len(stage.devices)
    with stage.screen.count(wanted, "online") as show:
        stage.processes.wait_for(
            "every device online", 60, lambda: show(_online(stage.client)) == wanted
        )
    claims.unlink()


def _invite(stage: Stage, device: str) -> str:
    tags = {"site": _SITE, "line": "simulated" if device.startswith("sim-") else "real"}
    body = {"deviceId": device, "tags": tags, "hours": 1}
    claim: str = stage.client.post("/api/v1/invitations", body)["claim"]
    return claim


def _start_agent(stage: Stage, device: str, *, by_cable: bool = False) -> None:
    home = stage.home(device)
    extra = {"RIMWARD_AGENT_LEDGER": str(home / "acknowledged")}
    if by_cable:
        extra |= _cables(stage, home)
    arguments = ["run", "--home", str(home), "--runtime", stage.devices[device][1]]
    stage.agents[device] = stage.processes.start(f"agent-{device}", "agent", arguments, extra)


def _cables(stage: Stage, home: Path) -> dict[str, str]:
    """Lay links between one agent and the hub that can be cut later."""
    enrolled = json.loads((home / "identity" / "enrolled.json").read_text())
    mqtt, url = enrolled["enrolled"]["mqtt"], enrolled["hubUrl"]
    https, https_port = stage.processes.link("https", url.removeprefix("https://"))
    broker, mqtt_port = stage.processes.link("mqtt", f"{mqtt['host']}:{mqtt['port']}")
    stage.cables = [https, broker]
    return {
        "RIMWARD_AGENT_HUB_URL": f"https://127.0.0.1:{https_port}",
        "RIMWARD_AGENT_MQTT": f"127.0.0.1:{mqtt_port}",
    }


def take_cables_away(stage: Stage) -> None:
    """Connect the agent that was behind cables straight to the hub; they end with the demo."""
    stage.agents["lab-1"].process.terminate()
    stage.agents["lab-1"].process.wait()
    for cable in stage.cables:
        say_to(cable, "quit")
        cable.process.wait()
    _start_agent(stage, "lab-1")


def _online(client: HubClient) -> int:
    return sum(device["connected"] for device in every(client))


def _deploy(stage: Stage, name: str, image: str, *, waves: str) -> None:
    body = {
        "id": name,
        "manifest": simple_manifest(MODULE, image),
        "targetCondition": f"tags.site = '{_SITE}'",
        "priority": 1,
        "waves": waves,
    }
    stage.client.post("/api/v1/deployments", body)
    wanted = len(stage.devices)

    def settled() -> bool:
        found = stage.client.get(f"/api/v1/deployments/{name}")
        if found["state"] == "aborted":
            raise StoryError(f"{name} was aborted: {found['reason']}", "see the log of the device")
        show(found["devices"]["succeeded"])
        return bool(found["state"] == "done" and found["devices"]["succeeded"] == wanted)

    with stage.screen.count(wanted, "proved on golden samples") as show:
        stage.processes.wait_for("the deployment", 120, settled)


def _infer(stage: Stage) -> None:
    stage.feed(FRAMES_EACH * 4 // 10)
    _wait_stored(stage, stage.total_sent // 4)
    stage.agents["press-1"].kill()
    for cable in stage.cables:
        say_to(cable, "cut")
    stage.screen.say("press-1: agent killed with SIGKILL; lab-1: cut off from the hub")
    stage.feed(FRAMES_EACH * 4 // 10)
    away = {"press-1", "lab-1"}
    others = sum(len(sent) for device, sent in stage.sent.items() if device not in away)
    _wait_stored(stage, others)
    _start_agent(stage, "press-1")
    for cable in stage.cables:
        say_to(cable, "heal")
    stage.screen.say("press-1: started again; lab-1: connected again")
    stage.feed(FRAMES_EACH - 2 * (FRAMES_EACH * 4 // 10))
    _wait_stored(stage, stage.total_sent)


def _wait_stored(stage: Stage, wanted: int) -> None:
    def stored() -> bool:
        return show(stage.client.get("/api/v1/telemetry/stats")["stored"]) >= wanted

    with stage.screen.count(wanted, "inferences stored by the hub") as show:
        stage.processes.wait_for("the inferences", 120, stored)


def _deploy_bad(stage: Stage) -> None:
    before = {d["id"]: _version(d) for d in every(stage.client)}
    model = _register(stage, stage.digits.bad)
    image = _package(stage, f"digits:{model['version']}")
    body = {
        "id": "digits-2",
        "manifest": simple_manifest(MODULE, image),
        "targetCondition": f"tags.site = '{_SITE}'",
        "priority": 2,
        "waves": "1",
    }
    stage.client.post("/api/v1/deployments", body)
    found = stage.processes.wait_for("the refusal", 60, lambda: _aborted(stage.client))
    members = stage.client.get("/api/v1/deployments/digits-2/devices")
    failed = [member for member in members if member["state"] == "failed"]
    touched = [member["deviceId"] for member in members if member["wave"] is not None]
    if len(failed) != 1 or failed[0]["code"] != "golden-mismatch" or len(touched) != 1:
        raise StoryError(f"the bad version ended as {members}", "this is a defect in the rollout")
    first = failed[0]["deviceId"]
    stage.processes.wait_for(
        f"{first} back on version 1", 30, lambda: _settled(stage.client, first, before[first])
    )
    after = {d["id"]: _version(d) for d in every(stage.client)}
    untouched = [device for device in before if device != first and before[device] == after[device]]
    stage.refusal = {
        "device": first,
        "code": failed[0]["code"],
        "message": failed[0]["message"],
        "reason": found["reason"],
        "untouched": len(untouched),
        "others": len(before) - 1,
        "backOn": stage.client.get("/api/v1/models/digits:1")["name"] + ":1",
    }
    stage.screen.say(f"{first}: {failed[0]['message']}")


def _aborted(client: HubClient) -> Any:
    found = client.get("/api/v1/deployments/digits-2")
    return found if found["state"] == "aborted" else None


def _version(device: dict[str, Any]) -> tuple[int, str]:
    """Return the desired version a device has settled on, and the image it runs."""
    reported = device["reported"]
    module = reported.get("modules", {}).get(MODULE, {})
    return reported.get("lastDesiredVersion", 0), module.get("settings", {}).get("image", "")


def _settled(client: HubClient, device: str, before: tuple[int, str]) -> bool:
    """Tell whether a device runs the image of before, by a newer desired state."""
    found = client.get(f"/api/v1/devices/{device}")
    version, image = _version(found)
    state = found["reported"].get("x-update", {}).get("state")
    running = found["reported"]["modules"][MODULE]["runtimeStatus"] == "running"
    return bool(image == before[1] and version > before[0] + 1 and state == "succeeded" and running)


def _go_on(stage: Stage) -> None:
    stage.feed(AFTERWARDS)
    _wait_stored(stage, stage.total_sent)
    # Acknowledgements follow the commit: give the last ones the moment they take.
    wait: Callable[[], bool] = lambda: _acknowledged(stage) >= stage.total_sent  # noqa: E731
    stage.processes.wait_for("the acknowledgements", 30, wait)


def _acknowledged(stage: Stage) -> int:
    return sum(acknowledged(stage.home(device)) for device in stage.devices)


def acknowledged(home: Path) -> int:
    """Return how many different messages an agent's ledger says the hub acknowledged."""
    path = home / "acknowledged"
    seen: set[tuple[str, int]] = set()
    for line in path.read_text().splitlines() if path.exists() else ():
        epoch, first, last = line.split()
        seen.update((epoch, seq) for seq in range(int(first), int(last) + 1))
    return len(seen)
