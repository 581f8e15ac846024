"""A module server in a process of its own, on a free loopback port."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

REPOSITORY = Path(__file__).resolve().parents[3]
MODULES = REPOSITORY / "modules"
START_SECONDS = 30.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        return str(self.json["message"])


@dataclass
class InferenceProcess:
    """Starts on entering; on leaving it is killed if the test has not ended it."""

    folder: Path
    script: str | None = None
    model_dir: Path | None = None
    env: dict[str, str] = field(default_factory=dict)
    module: str = "inference"
    port: int = field(default_factory=free_port)

    def __enter__(self) -> Self:
        self.launch()
        self.wait_until("/health/ready", 200)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log_file.close()

    def launch(self) -> None:
        env = {"PATH": os.environ["PATH"], "AML_APP_ROOT": str(self.folder)}
        env["RIMWARD_MODULE_PORT"] = str(self.port)
        env["PYTHONPATH"] = str(MODULES if self.module == "inference" else REPOSITORY)
        if self.script is not None:
            (self.folder / "score.py").write_text(self.script)
            env["AZUREML_ENTRY_SCRIPT"] = "score.py"
        if self.model_dir is not None:
            env["AZUREML_MODEL_DIR"] = str(self.model_dir)
        self.log_path = self.folder / "server.log"
        self.log_file = self.log_path.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", self.module],
            env=env | self.env,
            cwd=self.folder,
            stdout=self.log_file,
            stderr=subprocess.STDOUT,
        )

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def wait_until(self, path: str, status: int) -> Reply:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            assert self.process.poll() is None, f"the server ended:\n{self.log}"
            try:
                reply = self.request("GET", path)
            except OSError:
                reply = None
            if reply is not None and reply.status == status:
                return reply
            time.sleep(0.01)
        raise AssertionError(f"{path} did not answer {status}:\n{self.log}")

    def wait_for_log(self, text: str) -> None:
        end = time.monotonic() + START_SECONDS
        while text not in self.log:
            assert time.monotonic() < end, f"{text!r} is not in:\n{self.log}"
            time.sleep(0.01)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, found, answer.read())
        finally:
            connection.close()

    def score(self, value: object, headers: dict[str, str] | None = None) -> Reply:
        given = {"content-type": "application/json"} | (headers or {})
        return self.request("POST", "/score", json.dumps(value), given)

    def wait_for_active(self, count: int) -> None:
        end = time.monotonic() + START_SECONDS
        while self.request("GET", "/metadata").json["active"] != count:
            assert time.monotonic() < end, f"never {count} requests inside"

    def terminate(self) -> int:
        self.process.terminate()
        return self.process.wait(20)
