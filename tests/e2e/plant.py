"""A plant for stories: a real hub, real agents, real modules, each a process that can be killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hub.cli.client import HubClient, load_context
from hub.cli.deployments import simple_manifest
from hub.cli.images import follow, pack
from hub.demo.digits import Digits
from protocol.errors import FleetError

ROOT = Path(__file__).resolve().parents[2]
MODULE = "digits"
LIMIT_SECONDS = 90.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, look: Callable[[], Any], seconds: float = LIMIT_SECONDS) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := look():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {seconds:g} s")


@dataclass
class Plant:
    folder: Path
    digits: Digits
    options: dict[str, str] = field(default_factory=dict)
    https_port: int = field(default_factory=free_port)
    mqtt_port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    runtimes: dict[str, str] = field(default_factory=dict)
    _client: HubClient | None = None

    # ---- processes -------------------------------------------------------------------------------

    def _spawn(self, name: str, module: str, *arguments: str, **extra: str) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RIMWARD_")}
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**environment, **extra},
                start_new_session=True,
            )

    def run(self, module: str, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RIMWARD_")}
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**environment, "NO_COLOR": "1", **extra},
        )

    def start_hub(self, **extra: str) -> None:
        data = str(self.folder / "hub")
        ports = ["--https-port", str(self.https_port), "--mqtt-port", str(self.mqtt_port)]
        options = [part for key, value in self.options.items() for part in (f"--{key}", value)]
        self._spawn("hub", "hub", "hub", "up", "--data", data, *ports, *options, **extra)

    @property
    def admin(self) -> Path:
        return self.folder / "hub" / "admin.json"

    @property
    def client(self) -> HubClient:
        """The connection to the hub, once it answers."""
        if self._client is None:
            wait_for("admin.json", self.admin.exists)
            self._client = HubClient(load_context(self.admin))
        client = self._client
        wait_for("the hub", lambda: self._answers(client))
        return client

    def _answers(self, client: HubClient) -> bool:
        if self.processes["hub"].poll() is not None:
            raise AssertionError((self.folder / "hub.log").read_text()[-3000:])
        try:
            client.get("/api/v1/models")
        except FleetError as error:
            if error.retryable:
                return False
            raise
        return True

    def home(self, device: str) -> Path:
        return self.folder / device

    def enroll(self, device: str, *, site: str = "plant-7", runtime: str = "process") -> None:
        body = {"deviceId": device, "tags": {"site": site}}
        claim = self.client.post("/api/v1/invitations", body)["claim"]
        home = str(self.home(device))
        done = self.run(
            "agent", "enroll", "--home", home, "--profile", "generic-x86", "--claim", claim
        )
        assert done.returncode == 0, done.stderr
        self.runtimes[device] = runtime

    def start_agent(self, device: str, **extra: str) -> None:
        home = self.home(device)
        settings = {
            "RIMWARD_AGENT_TICK_SECONDS": "0.2",
            "RIMWARD_AGENT_RESTART_SECONDS": "0.2",
            "RIMWARD_AGENT_LEDGER": str(home / "acknowledged"),
            **extra,
        }
        arguments = ["run", "--home", str(home), "--runtime", self.runtimes[device]]
        self._spawn(device, "agent", *arguments, **settings)

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()

    def module_pids(self, device: str) -> list[int]:
        """Return the processes of a device's modules, as the runtime recorded them."""
        pids = []
        for path in (self.home(device) / "instances").glob("*/record.json"):
            record = json.loads(path.read_text())
            if record.get("process") and not record["exited"]:
                pids.append(record["process"]["pid"])
        return pids

    def stop(self) -> None:
        if self._client is not None:
            self._client.close()
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for device, runtime in self.runtimes.items():
            home = str(self.home(device))
            self.run("agent", "stop-modules", "--home", home, "--runtime", runtime)

    # ---- the job ---------------------------------------------------------------------------------

    def register(self, *, good: bool = True) -> str:
        client, path = self.client, self.digits.good if good else self.digits.bad
        with path.open("rb") as file:
            digest = client.upload(file, lambda _count: None)
        golden = self.digits.golden
        body = {"name": "digits", "digest": digest, "filename": "model.onnx", "golden": golden}
        model = client.post("/api/v1/models", body)
        return f"{model['name']}:{model['version']}"

    def package(self, model: str, *, base: str = "host") -> str:
        client = self.client
        source = pack(ROOT / "modules" / "samples" / "digits")
        body = {
            "name": "digits-image",
            "models": [model],
            "source": client.upload(source, lambda _count: None),
            "entryScript": "score.py",
            "pythonVersion": f"{sys.version_info.major}.{sys.version_info.minor}",
            "base": base,
        }
        image = follow(client, client.post("/api/v1/images", body), lambda _step: None)
        return f"{image['name']}:{image['version']}"

    def deploy(self, name: str, image: str, **body: Any) -> None:
        self.client.post(
            "/api/v1/deployments",
            {
                "id": name,
                "manifest": simple_manifest(MODULE, image),
                "targetCondition": "tags.site = 'plant-7'",
                **body,
            },
        )

    def deployment(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/api/v1/deployments/{name}")
        return found

    def wait_deployed(self, name: str, devices: int) -> None:
        def settled() -> bool:
            found = self.deployment(name)
            assert found["state"] != "aborted", found["reason"]
            return bool(found["devices"]["succeeded"] == devices)

        wait_for(f"deployment {name}", settled)

    def feed(self, device: str, name: str, frame: bytes) -> None:
        inputs = self.home(device) / "inputs" / MODULE
        inputs.mkdir(parents=True, exist_ok=True)
        hidden = inputs / f".{name}"
        hidden.write_bytes(frame)
        hidden.replace(inputs / f"{name}.json")

    def feed_all(self, device: str, count: int, *, start: int = 0) -> list[str]:
        frames = list(self.digits.frames.items())
        names = []
        for number in range(start, start + count):
            label, frame = frames[number % len(frames)]
            names.append(f"{number:06d}.{label}")
            self.feed(device, names[-1], frame)
        return names

    def stored(self) -> int:
        count: int = self.client.get("/api/v1/telemetry/stats")["stored"]
        return count

    def score(self, names: list[str]) -> dict[str, Any]:
        truth = {name: self.digits.truth[name.partition(".")[2]] for name in names}
        scores: dict[str, Any] = self.client.post("/api/v1/telemetry/score", {"truth": truth})
        return scores

    def database(self) -> list[tuple[str, str, int, str]]:
        """Return (device, epoch, seq, input) of every record in the order of arrival."""
        source = f"file:{self.folder / 'hub' / 'hub.db'}?mode=ro"
        with closing(sqlite3.connect(source, uri=True)) as database:
            rows = database.execute(
                "SELECT device, epoch, seq, properties FROM telemetry ORDER BY id"
            ).fetchall()
        return [(d, epoch, seq, json.loads(p)["input"]) for d, epoch, seq, p in rows]

    def ledger(self, device: str) -> set[tuple[str, int]]:
        """Return (epoch, seq) of what the hub acknowledged, as the agent wrote it down."""
        path = self.home(device) / "acknowledged"
        out: set[tuple[str, int]] = set()
        for line in path.read_text().splitlines() if path.exists() else ():
            epoch, first, last = line.split()
            out.update((epoch, seq) for seq in range(int(first), int(last) + 1))
        return out


@contextmanager
def plant(folder: Path, digits: Digits, **options: str) -> Iterator[Plant]:
    made = Plant(folder, digits, dict(options))
    try:
        yield made
    finally:
        made.stop()
