"""What only the process runtime promises."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
from oci_fixture import BEARER, Layer, OciRegistry, make_tar
from runtime_worlds import ProcessWorld

from agent.adapters.prober import HttpProber
from agent.adapters.process.runtime import ProcessRuntime
from agent.core.plan import Instance, InstanceState, ModuleSpec
from protocol.errors import Code, FleetError
from protocol.ids import ModuleName

AGENT = """
import asyncio, os, ssl, sys
from pathlib import Path
sys.path[:0] = sys.argv[4:]
from oci_fixture import BEARER
from agent.adapters.clock import SystemClock
from agent.adapters.images.puller import ImagePuller
from agent.adapters.images.store import ImageStore
from agent.adapters.images.documents import host_architecture
from agent.adapters.images.client import RegistryClient
from agent.adapters.process.command import HostSettings
from agent.adapters.process.runtime import ProcessRuntime
from agent.core.plan import ModuleSpec
from protocol.ids import ModuleName, parse_image_ref

async def main():
    root, image = Path(sys.argv[1]), parse_image_ref(sys.argv[2])
    trust = ssl.create_default_context(cafile=sys.argv[3])
    puller = ImagePuller(RegistryClient(SystemClock(), ssl_context=trust),
                         ImageStore(root / "images"), architecture=host_architecture())
    runtime = ProcessRuntime(root / "instances", puller, SystemClock(),
                             host=HostSettings(path=os.environ["PATH"]))
    await runtime.pull(image, BEARER)
    started = await runtime.start(ModuleSpec(ModuleName("digits"), image))
    print(started.endpoint, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ProcessWorld]:
    with OciRegistry() as registry:
        made = ProcessWorld(registry, tmp_path)
        try:
            yield made
        finally:
            asyncio.run(made.clean())


def run(world: ProcessWorld, story: Callable[[ProcessRuntime], Awaitable[None]]) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(60):
            await story(world.process_runtime())

    asyncio.run(scenario())


def spec(world: ProcessWorld, **options: object) -> ModuleSpec:
    return ModuleSpec(ModuleName("digits"), world.image, create_options=dict(options))


async def environment(instance: Instance) -> dict[str, str]:
    prober = HttpProber()
    _, raw = await prober.request(f"{instance.endpoint}/environ", None, timeout_seconds=5)
    await prober.close()
    return dict(line.split("=", 1) for line in raw.decode().split("\0") if line)


def test_a_module_sees_nothing_of_the_agents_environment(world: ProcessWorld) -> None:
    async def story(runtime: ProcessRuntime) -> None:
        await runtime.pull(world.image, BEARER)
        started = await runtime.start(spec(world, Env=["MODE=fast"]))
        await world.ask(started)
        seen = await environment(started)

        assert seen.pop("MODEL").endswith("/models/weights.bin")
        assert seen.pop("HOME") == str(world.root / "instances" / started.id / "home")
        assert seen.pop("RIMWARD_MODULE_PORT") == str(urlsplit(started.endpoint).port)
        assert seen.keys() == {
            *("PATH", "LANG", "PYTHONNOUSERSITE", "MODE"),
            *("RIMWARD_MODULE_HOST", "RIMWARD_INSTANCE"),
        }

    run(world, story)


def test_a_module_survives_the_death_of_its_agent(world: ProcessWorld, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(world.registry.ca_pem)
    here = Path(__file__).parent
    words = [sys.executable, "-c", AGENT, tmp_path, str(world.image), ca, here, here.parents[1]]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as agent:
        assert agent.stdout is not None
        endpoint = next(line.strip() for line in agent.stdout if line.startswith("http"))
        agent.kill()

    async def story(runtime: ProcessRuntime) -> None:
        (adopted,) = (await runtime.observe()).instances
        assert (adopted.state, adopted.endpoint) == (InstanceState.RUNNING, endpoint)
        assert await world.ask(adopted) == 200

        await world.crash(adopted)
        for _ in range(500):
            (adopted,) = (await runtime.observe()).instances
            if adopted.state is InstanceState.EXITED:
                break
            await asyncio.sleep(0.01)
        assert (adopted.state, adopted.exit_code) == (InstanceState.EXITED, None)

    run(world, story)


def test_an_instance_started_but_not_noted_is_found_again(world: ProcessWorld) -> None:
    async def story(runtime: ProcessRuntime) -> None:
        await runtime.pull(world.image, BEARER)
        started = await runtime.start(spec(world))
        await world.ask(started)
        record = runtime._folders.get(started.id)
        assert record is not None
        runtime._folders.put(msgspec.structs.replace(record, process=None))

        (found,) = (await world.process_runtime().observe()).instances

        assert found == started
        assert runtime._folders.get(started.id) == record

    run(world, story)


def test_an_intention_without_a_process_is_forgotten(world: ProcessWorld) -> None:
    async def story(runtime: ProcessRuntime) -> None:
        await runtime.pull(world.image, BEARER)
        started = await runtime.start(spec(world))
        record = runtime._folders.get(started.id)
        assert record is not None
        await runtime.stop(started.id, grace_seconds=1)
        runtime._folders.put(msgspec.structs.replace(record, process=None))

        assert (await world.process_runtime().observe()).instances == ()

    run(world, story)


def test_a_module_that_will_not_end_is_killed(world: ProcessWorld) -> None:
    code = (
        b"import os, signal, time\n"
        b"signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        b"os.fork()\n"
        b"print(os.getpid(), flush=True)\n"
        b"time.sleep(60)\n"
    )
    stubborn = world.registry.put_image(
        [Layer(make_tar({"main.py": code}))], {"Cmd": ["python3", "/main.py"]}
    )

    async def story(runtime: ProcessRuntime) -> None:
        image = world.registry.ref(stubborn)
        await runtime.pull(image, BEARER)
        started = await runtime.start(ModuleSpec(ModuleName("stubborn"), image))
        lines: list[str] = []
        for _ in range(500):
            lines = (await runtime.logs(started.id)).split()
            if len(lines) == 2:
                break
            await asyncio.sleep(0.01)

        await runtime.stop(started.id, grace_seconds=0.1)

        for _ in range(500):
            if not any(_is_alive(pid) for pid in lines):
                break
            await asyncio.sleep(0.01)
        assert not any(_is_alive(pid) for pid in lines)
        assert len(lines) == 2
        assert (await runtime.observe()).instances == ()

    run(world, story)


def _is_alive(pid: str) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_killed_module_reports_its_signal(world: ProcessWorld) -> None:
    async def story(runtime: ProcessRuntime) -> None:
        await runtime.pull(world.image, BEARER)
        started = await runtime.start(spec(world))
        os.kill(world.pid(started), signal.SIGKILL)
        for _ in range(500):
            (seen,) = (await runtime.observe()).instances
            if seen.state is InstanceState.EXITED:
                break
            await asyncio.sleep(0.01)

        assert seen.exit_code == 128 + signal.SIGKILL
        assert (await world.process_runtime().observe()).instances == (seen,)

    run(world, story)


def test_memory_is_limited(world: ProcessWorld) -> None:
    code = (
        b"import time\n"
        b"time.sleep(0.3)\n"  # the limit is set right after the start
        b"try:\n    bytearray(400_000_000)\n"
        b"except MemoryError:\n    raise SystemExit(42)\n"
    )
    hungry = world.registry.put_image(
        [Layer(make_tar({"main.py": code}))], {"Cmd": ["python3", "/main.py"]}
    )

    async def story(runtime: ProcessRuntime) -> None:
        image = world.registry.ref(hungry)
        await runtime.pull(image, BEARER)
        options = {"HostConfig": {"Memory": 200_000_000}}
        await runtime.start(ModuleSpec(ModuleName("hungry"), image, create_options=options))
        for _ in range(500):
            (seen,) = (await runtime.observe()).instances
            if seen.state is InstanceState.EXITED:
                break
            await asyncio.sleep(0.01)

        assert seen.exit_code == 42

    run(world, story)


def test_a_bound_port_is_kept(world: ProcessWorld) -> None:
    async def story(runtime: ProcessRuntime) -> None:
        await runtime.pull(world.image, BEARER)
        first = await runtime.start(spec(world))
        await runtime.stop(first.id, grace_seconds=1)
        port = str(urlsplit(first.endpoint).port)
        bound = spec(world, HostConfig={"PortBindings": {"5001/tcp": [{"HostPort": port}]}})

        started = await runtime.start(bound)

        assert started.endpoint == first.endpoint
        assert await world.ask(started) == 200

    run(world, story)


def test_an_image_for_a_missing_python_costs_no_layers(world: ProcessWorld) -> None:
    digest = world.registry.put_image(
        [Layer(make_tar({"main.py": b""}))],
        {"Cmd": ["python3", "/main.py"], "Labels": {"io.rimward.python": "3.99"}},
    )

    async def story(runtime: ProcessRuntime) -> None:
        with pytest.raises(FleetError) as caught:
            await runtime.pull(world.registry.ref(digest), BEARER)

        assert caught.value.code is Code.INTERPRETER_MISSING
        assert len([path for path, _, _ in world.registry.requests if "/blobs/" in path]) == 1

    run(world, story)


@pytest.mark.parametrize("words", [["/app/server.py"], ["/bin/absent"], []])
def test_what_cannot_be_executed_did_not_start(world: ProcessWorld, words: list[str]) -> None:
    async def story(runtime: ProcessRuntime) -> None:
        await runtime.pull(world.image, BEARER)
        with pytest.raises(FleetError) as caught:
            await runtime.start(spec(world, Entrypoint=words))

        assert caught.value.code is Code.MODULE_START_FAILED
        assert (await runtime.observe()).instances == ()

    run(world, story)


def test_files_of_an_image_are_shared_and_read_only(world: ProcessWorld) -> None:
    async def story(runtime: ProcessRuntime) -> None:
        for version in ("1", "2"):
            await runtime.pull(world.other_image(version), BEARER)
        servers = list((world.root / "images").glob("rootfs/*/app/server.py"))

        assert len(servers) == 2
        assert servers[0].samefile(servers[1])
        assert servers[0].stat().st_mode & 0o777 == 0o444

    run(world, story)
