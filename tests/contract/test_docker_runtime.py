"""What only the Docker runtime promises."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from docker_fixture import DockerWorld, docker_engine
from oci_fixture import BEARER, OciRegistry

from agent.adapters.docker.options import DEVICE_LABEL, container_name
from agent.adapters.docker.runtime import DockerRuntime
from agent.core.plan import ModuleSpec
from protocol.errors import Code, FleetError
from protocol.ids import DeviceId, ModuleName
from protocol.messages import Credential

pytestmark = pytest.mark.docker


@pytest.fixture
def world(tmp_path: Path) -> Iterator[DockerWorld]:
    with OciRegistry() as registry:
        made = DockerWorld(registry, tmp_path, docker_engine())
        try:
            yield made
        finally:
            asyncio.run(made.clean())


def run(world: DockerWorld, story: Callable[[DockerRuntime], Awaitable[None]]) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(60):
            await story(DockerRuntime(world.engine, world.device, world.root / "state"))

    asyncio.run(scenario())


def spec(world: DockerWorld, **options: Any) -> ModuleSpec:
    host = world.options["HostConfig"] | options.pop("HostConfig", {})
    return ModuleSpec(
        ModuleName("digits"), world.image, create_options={"HostConfig": host, **options}
    )


def test_containers_of_other_devices_are_invisible(world: DockerWorld) -> None:
    async def story(runtime: DockerRuntime) -> None:
        await runtime.pull(world.image, BEARER)
        started = await runtime.start(spec(world))
        other = DockerRuntime(world.engine, DeviceId("another"), world.root / "another")
        await other.stop(started.id)
        await other.remove_images(frozenset())

        assert (await other.observe()).instances == ()
        assert (await runtime.observe()).instances == (started,)

    run(world, story)


def test_a_container_says_whose_it_is(world: DockerWorld) -> None:
    async def story(runtime: DockerRuntime) -> None:
        await runtime.pull(world.image, BEARER)
        started = await runtime.start(spec(world, Labels={"mine": "kept"}))
        name = container_name(world.device, started.id)
        seen = await world.engine.call(lambda api: api.inspect_container(name))

        labels = seen["Config"]["Labels"]
        assert labels["mine"] == "kept"
        assert labels[DEVICE_LABEL] == world.device
        assert labels["io.rimward.image"] == world.image.digest
        assert seen["HostConfig"]["RestartPolicy"]["Name"] in ("", "no")

    run(world, story)


def test_a_pull_that_a_reboot_cut_is_removed_and_done_again(world: DockerWorld) -> None:
    async def story(runtime: DockerRuntime) -> None:
        await runtime.pull(world.image, BEARER)
        record = world.root / "state" / "docker-images.json"
        record.write_text(f'{{"pending": {{"{world.image.digest}": "an earlier boot"}}}}')
        again = DockerRuntime(world.engine, world.device, world.root / "state")
        assert (await again.observe()).images == frozenset()

        pulled = await again.pull(world.image, BEARER)

        assert pulled.bytes_received > 0
        assert (await again.observe()).images == {world.image.digest}

    run(world, story)


def test_an_image_somebody_else_pulled_is_adopted_without_bytes(world: DockerWorld) -> None:
    async def story(runtime: DockerRuntime) -> None:
        other = DockerRuntime(world.engine, DeviceId("another"), world.root / "another")
        await other.pull(world.image, BEARER)

        assert (await runtime.pull(world.image, BEARER)).bytes_received == 0
        assert (await runtime.observe()).images == {world.image.digest}

    run(world, story)


def test_a_bound_port_is_kept(world: DockerWorld) -> None:
    async def story(runtime: DockerRuntime) -> None:
        await runtime.pull(world.image, BEARER)
        first = await runtime.start(spec(world))
        await runtime.stop(first.id, grace_seconds=0)
        binding = [{"HostIp": "127.0.0.1", "HostPort": str(urlsplit(first.endpoint).port)}]

        started = await runtime.start(
            spec(world, HostConfig={"PortBindings": {"5001/tcp": binding}})
        )

        assert started.endpoint == first.endpoint
        assert await world.ask(started) == 200

    run(world, story)


def test_a_container_that_cannot_start_is_removed(world: DockerWorld) -> None:
    async def story(runtime: DockerRuntime) -> None:
        await runtime.pull(world.image, BEARER)
        with pytest.raises(FleetError) as caught:
            await runtime.start(spec(world, Entrypoint=["/bin/absent"]))

        assert caught.value.code is Code.MODULE_START_FAILED
        assert (await runtime.observe()).instances == ()

    run(world, story)


def test_a_password_works_as_well_as_a_token(world: DockerWorld) -> None:
    world.registry.users["device"] = "secret"
    basic = Credential("basic", username="device", password="secret")

    async def story(runtime: DockerRuntime) -> None:
        assert (await runtime.pull(world.image, basic)).bytes_received > 0

    run(world, story)
