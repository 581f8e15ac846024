"""A Docker Engine for tests: the one `DOCKER_HOST` names, and images that need nothing but it.

To try the `docker` tests without touching a system engine, start a private one:

    dockerd --data-root $D/data --exec-root $D/exec --pidfile $D/pid -H unix://$D/docker.sock
    DOCKER_HOST=unix://$D/docker.sock RIMWARD_TEST_REQUIRE=docker pytest -m docker
"""

from __future__ import annotations

import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

import docker
from docker.errors import APIError, DockerException
from oci_fixture import Layer, OciRegistry, make_tar
from requirements_gate import require
from runtime_worlds import RegistryWorld, ask_http

from agent.adapters.docker.engine import DockerEngine
from agent.adapters.docker.options import DEVICE_LABEL, container_name
from agent.adapters.docker.runtime import DockerRuntime
from agent.core.plan import Instance
from agent.core.ports import Runtime
from protocol.ids import DeviceId, Digest

SCRIPT = b"""#!/bin/busybox sh
echo "module started"
[ -n "$TEST_EXIT" ] && exit "$TEST_EXIT"
exec /bin/busybox httpd -f -p "$RIMWARD_MODULE_HOST:$RIMWARD_MODULE_PORT" -h /www
"""


def docker_engine() -> str:
    """The address of an engine that answers; skips without one, fails if one is required."""
    address = os.environ.get("DOCKER_HOST", "")
    require("docker", shutil.which("busybox") is not None, "no static busybox to make an image of")
    require("docker", bool(address), "DOCKER_HOST is not set")
    try:
        docker.APIClient(base_url=address, version="auto", timeout=5).close()
    except DockerException as error:
        require("docker", available=False, why=f"no engine answers at DOCKER_HOST: {error}")
    return address


class DockerWorld(RegistryWorld):
    """One device of an engine that may have others, on a network of its own.

    The engine's default bridge is shared by every engine of a machine, so another one may take it.
    """

    def __init__(self, registry: OciRegistry, root: Path, address: str) -> None:
        super().__init__(registry)
        self.root = root
        self.address = address
        self.device = DeviceId(f"test-{uuid.uuid4().hex[:12]}")
        self.engine = DockerEngine(address)
        self.options = {"HostConfig": {"NetworkMode": str(self.device)}}
        with docker.APIClient(base_url=address, version="auto") as api:
            api.create_network(str(self.device), driver="bridge")

    def make_image(self, version: str) -> Digest:
        busybox = Path(str(shutil.which("busybox"))).read_bytes()
        base = make_tar({"bin/busybox": busybox}, executable=("bin/busybox",))
        code = make_tar({"app/run.sh": SCRIPT, "www/": b"", "www/health": b"ok"})
        model = make_tar({"models/weights.bin": version.encode() * 1000})
        return self.registry.put_image(
            [Layer(base, kind="base", gzip=True), Layer(code), Layer(model, kind="model")],
            {"Entrypoint": ["/bin/busybox", "sh"], "Cmd": ["/app/run.sh"]},
        )

    def runtime(self) -> Runtime:
        return DockerRuntime(self.engine, self.device, self.root / "state")

    async def crash(self, instance: Instance) -> None:
        name = container_name(self.device, instance.id)
        await self.engine.call(lambda api: api.kill(name))

    async def ask(self, instance: Instance, tries: int = 200) -> int:
        return await ask_http(instance, tries)

    async def clean(self) -> None:
        await self.engine.call(self._clean)
        self.engine.close()

    def _clean(self, api: docker.APIClient) -> None:
        for found in api.containers(all=True, filters={"label": f"{DEVICE_LABEL}={self.device}"}):
            api.remove_container(found["Id"], force=True, v=True)
        api.remove_network(str(self.device))
        for image in api.images():
            for name in image.get("RepoDigests") or ():
                if name.startswith(self.registry.authority):
                    with suppress(APIError):
                        api.remove_image(name, force=True)
