"""A real docker-registry behind TLS and htpasswd, as an operator may run it beside a hub."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from requirements_gate import require
from tls_lab import make_authority

from hub.adapters.registry.login import Login

LOGIN = Login("admin", "admin-secret")
# What `htpasswd -B` makes of that password; the cost is the lowest there is.
_HTPASSWD = "admin:$2y$04$zZopza/gfhRL0rO4BNfYwuQ13BvOK5iGIxFgIz6dj6/CmePcQwmTW\n"


@dataclass(frozen=True)
class Running:
    """A docker-registry that answers."""

    authority: str
    ca_file: Path


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@pytest.fixture(scope="module")
def docker_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    program = shutil.which("docker-registry")
    require("registry", program is not None, "docker-registry is not on PATH")
    root = tmp_path_factory.mktemp("docker-registry")
    authority = make_authority()
    (root / "ca.pem").write_text(authority.pem)
    authority.credential(root, "server")
    (root / "htpasswd").write_text(_HTPASSWD)
    port = free_port()
    settings = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(root / "data")},
            "delete": {"enabled": True},
        },
        "http": {
            "addr": f"127.0.0.1:{port}",
            "secret": "for tests",
            "tls": {"certificate": str(root / "server.pem"), "key": str(root / "server.pem")},
        },
        "auth": {"htpasswd": {"realm": "test", "path": str(root / "htpasswd")}},
    }
    (root / "config.yml").write_text(json.dumps(settings))
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(program), "serve", str(root / "config.yml")], stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + 10
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                require("registry", available=False, why=(root / "log").read_text()[-500:])
            time.sleep(0.05)
        yield Running(f"127.0.0.1:{port}", root / "ca.pem")
    finally:
        process.terminate()
        process.wait(10)
