"""The surroundings in which one contract suite meets every runtime."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from oci_fixture import OciRegistry, python_image

from agent.adapters.clock import SystemClock
from agent.adapters.images.client import PullPolicy, RegistryClient
from agent.adapters.images.documents import host_architecture
from agent.adapters.images.puller import ImagePuller
from agent.adapters.images.store import ImageStore
from agent.adapters.prober import HttpProber
from agent.adapters.process.command import HostSettings
from agent.adapters.process.runtime import ProcessRuntime
from agent.core.plan import Instance
from agent.core.ports import Runtime
from protocol.errors import FleetError
from protocol.ids import Digest, ImageRef
from simulator.fakes import FakeMachine, FakeProber, FakeRuntime, ManualClock
from simulator.shared_runtime import SharedMachine, SharedRuntime

ABSENT = Digest("sha256:" + "ab" * 32)
QUICK = PullPolicy(attempts=2, first_delay=0.01, stall_seconds=2)


class World(Protocol):
    """A machine, a registry with images, and ways to make things happen."""

    image: ImageRef
    options: dict[str, Any]  # create options every module here needs

    def runtime(self) -> Runtime: ...
    def other_image(self, version: str) -> ImageRef: ...
    def altered_image(self) -> ImageRef: ...
    def missing_image(self) -> ImageRef: ...
    def wrong_token(self) -> str: ...
    def exited(self, instance_id: str, code: int) -> None: ...
    async def crash(self, instance: Instance) -> None: ...
    async def ask(self, instance: Instance, tries: int = 200) -> int: ...
    async def clean(self) -> None: ...


class RegistryWorld:
    """The part that a real registry plays for all but the machine."""

    def __init__(self, registry: OciRegistry) -> None:
        self.registry = registry
        self.options: dict[str, Any] = {}
        self.image = registry.ref(self.make_image("1"))

    def make_image(self, version: str) -> Digest:
        return python_image(self.registry, version=version)

    def other_image(self, version: str) -> ImageRef:
        return self.registry.ref(self.make_image(version))

    def altered_image(self) -> ImageRef:
        before = set(self.registry.content)
        image = self.other_image("altered")
        layers = [d for d, (kind, _) in self.registry.content.items() if "layer" in kind]
        self.registry.faults.altered |= set(layers) - before
        return image

    def missing_image(self) -> ImageRef:
        return self.registry.ref(ABSENT)

    def wrong_token(self) -> str:
        return "wrong"

    def exited(self, instance_id: str, code: int) -> None:
        """Nothing to do: a real module exits by itself."""


async def ask_http(instance: Instance, tries: int) -> int:
    """The status of the module's answer; 0 when it does not answer, however often it is asked."""
    prober = HttpProber()
    url = f"{instance.endpoint}/health"
    try:
        for attempt in range(tries):
            await asyncio.sleep(0.02 if attempt else 0)
            with suppress(FleetError):
                status, _ = await prober.request(url, None, timeout_seconds=2)
                return status
    finally:
        await prober.close()
    return 0


class FakeWorld:
    def __init__(self, registry: OciRegistry) -> None:
        self.options: dict[str, Any] = {}
        self.image = ImageRef(registry.authority, "demo/digits", None, Digest("sha256:" + "1" * 64))
        self.machine = FakeMachine(offered={str(self.image.digest): 5000})

    def runtime(self) -> Runtime:
        return FakeRuntime(ManualClock(), self.machine)

    def other_image(self, version: str) -> ImageRef:
        digest = Digest("sha256:" + version[0] * 64)
        self.machine.offered = {**(self.machine.offered or {}), digest: 5000}
        return self.image.pinned(digest)

    def altered_image(self) -> ImageRef:
        image = self.other_image("a")
        self.machine.corrupt.add(str(image.digest))
        return image

    def missing_image(self) -> ImageRef:
        return self.image.pinned(ABSENT)

    def wrong_token(self) -> str:
        self.machine.refused.add("wrong")
        return "wrong"

    def exited(self, instance_id: str, code: int) -> None:
        self.machine.exit(instance_id, code)

    async def crash(self, instance: Instance) -> None:
        self.machine.exit(instance.id, 137)

    async def ask(self, instance: Instance, tries: int = 200) -> int:  # noqa: ARG002 - never warms up
        try:
            prober = FakeProber(self.machine)
            status, _ = await prober.request(f"{instance.endpoint}/health", None, timeout_seconds=1)
        except FleetError:
            return 0
        return status

    async def clean(self) -> None:
        pass


class ProcessWorld(RegistryWorld):
    def __init__(self, registry: OciRegistry, root: Path) -> None:
        super().__init__(registry)
        self.root = root
        self.client = RegistryClient(SystemClock(), ssl_context=registry.trust(), policy=QUICK)

    def puller(self) -> ImagePuller:
        store = ImageStore(self.root / "images")
        return ImagePuller(self.client, store, architecture=host_architecture())

    def process_runtime(self) -> ProcessRuntime:
        host = HostSettings(path=os.environ["PATH"])
        return ProcessRuntime(self.root / "instances", self.puller(), SystemClock(), host=host)

    def runtime(self) -> Runtime:
        return self.process_runtime()

    def pid(self, instance: Instance) -> int:
        record = self.process_runtime()._folders.get(instance.id)
        assert record is not None
        assert record.process is not None
        return record.process.pid

    async def crash(self, instance: Instance) -> None:
        os.kill(self.pid(instance), signal.SIGKILL)

    async def ask(self, instance: Instance, tries: int = 200) -> int:
        return await ask_http(instance, tries)

    async def clean(self) -> None:
        runtime = self.process_runtime()
        for instance in (await runtime.observe()).instances:
            await runtime.stop(instance.id, grace_seconds=0.5)
        self.client.close()


class SharedWorld(ProcessWorld):
    """One simulated device; the machine below survives its runtime object."""

    def __init__(self, registry: OciRegistry, root: Path) -> None:
        super().__init__(registry, root)
        puller = self.puller()
        host = HostSettings(path=os.environ["PATH"])
        runtime = ProcessRuntime(root / "instances", puller, SystemClock(), host=host)
        self.machine = SharedMachine(runtime, puller, runtime.check)

    def runtime(self) -> Runtime:
        return SharedRuntime("device-1", self.machine)
