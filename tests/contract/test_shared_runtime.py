"""Many simulated devices over one real runtime."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from oci_fixture import BEARER, OciRegistry
from runtime_worlds import SharedWorld

from agent.core.plan import InstanceState, ModuleSpec
from protocol.errors import Code, FleetError
from protocol.ids import ModuleName
from protocol.messages import Credential
from simulator.shared_runtime import SharedRuntime


@pytest.fixture
def world(tmp_path: Path) -> Iterator[SharedWorld]:
    with OciRegistry() as registry:
        made = SharedWorld(registry, tmp_path)
        try:
            yield made
        finally:
            asyncio.run(made.clean())


def run(world: SharedWorld, story: Callable[[list[SharedRuntime]], Awaitable[None]]) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(60):
            await story([SharedRuntime(f"device-{n}", world.machine) for n in range(5)])

    asyncio.run(scenario())


def spec(world: SharedWorld, name: str = "digits") -> ModuleSpec:
    return ModuleSpec(ModuleName(name), world.image)


def test_layers_are_fetched_once_and_manifests_by_every_device(world: SharedWorld) -> None:
    async def story(devices: list[SharedRuntime]) -> None:
        pulled = await asyncio.gather(*(d.pull(world.image, BEARER) for d in devices))

        sizes = sorted(result.bytes_received for result in pulled)
        paths = [path for path, _, _ in world.registry.requests]
        manifest = len(world.registry.content[str(world.image.digest)][1])
        assert sizes[:4] == [manifest] * 4
        assert len([path for path in paths if "/manifests/" in path]) == 5
        assert len([path for path in paths if "/blobs/" in path]) == 3

    run(world, story)


def test_a_device_without_the_right_gets_nothing_from_the_others(world: SharedWorld) -> None:
    async def story(devices: list[SharedRuntime]) -> None:
        await devices[0].pull(world.image, BEARER)
        with pytest.raises(FleetError) as caught:
            await devices[1].pull(world.image, Credential("bearer", "wrong"))

        assert caught.value.code is Code.REGISTRY_REFUSED
        assert (await devices[1].observe()).images == frozenset()
        with pytest.raises(FleetError):
            await devices[1].start(spec(world))

    run(world, story)


def test_equal_modules_share_a_process_until_the_last_one_stops(world: SharedWorld) -> None:
    async def story(devices: list[SharedRuntime]) -> None:
        for device in devices:
            await device.pull(world.image, BEARER)
        started = [await device.start(spec(world)) for device in devices[:4]]
        renamed = await devices[4].start(spec(world, "other-name"))
        real = (await world.machine.runtime.observe()).instances

        assert len(real) == 1
        assert {instance.endpoint for instance in started} == {renamed.endpoint}
        assert renamed.id == spec(world, "other-name").instance_id

        for device, instance in zip(devices[:4], started, strict=True):
            await device.stop(instance.id, grace_seconds=1)
            assert (await device.observe()).instances == ()
        assert (await devices[4].observe()).instances == (renamed,)
        assert await world.ask(renamed) == 200
        await devices[4].stop(renamed.id, grace_seconds=1)
        assert (await world.machine.runtime.observe()).instances == ()

    run(world, story)


def test_every_device_sees_a_crash_and_any_can_start_again(world: SharedWorld) -> None:
    async def story(devices: list[SharedRuntime]) -> None:
        for device in devices:
            await device.pull(world.image, BEARER)
            started = await device.start(spec(world))
        os.kill(world.pid(started), signal.SIGKILL)
        for device in devices:
            for _ in range(500):
                (seen,) = (await device.observe()).instances
                if seen.state is InstanceState.EXITED:
                    break
                await asyncio.sleep(0.01)
            assert (seen.state, seen.exit_code) == (InstanceState.EXITED, 137)

        again = [await device.start(spec(world)) for device in devices]

        assert len({instance.endpoint for instance in again}) == 1
        assert await world.ask(again[0]) == 200

    run(world, story)


def test_an_image_goes_when_no_device_has_it(world: SharedWorld) -> None:
    async def story(devices: list[SharedRuntime]) -> None:
        for device in devices[:2]:
            await device.pull(world.image, BEARER)
        await devices[0].remove_images(frozenset())
        assert (await devices[0].observe()).images == frozenset()
        assert (await devices[1].observe()).images == {world.image.digest}

        await devices[1].remove_images(frozenset())

        assert (await world.machine.runtime.observe()).images == frozenset()

    run(world, story)
