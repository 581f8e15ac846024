"""What every runtime must do, the fake one and the real ones alike."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from docker_fixture import DockerWorld, docker_engine
from oci_fixture import BEARER, OciRegistry
from runtime_worlds import FakeWorld, ProcessWorld, SharedWorld, World

from agent.core.plan import Instance, InstanceState, ModuleSpec
from agent.core.ports import Runtime
from protocol.errors import Code, FleetError
from protocol.ids import ImageRef, ModuleName
from protocol.messages import Credential

WORLDS = [
    "fake",
    "shared",
    "process",
    pytest.param("docker", marks=pytest.mark.docker),
]


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with OciRegistry() as registry:
        made: World
        if request.param == "fake":
            made = FakeWorld(registry)
        elif request.param == "shared":
            made = SharedWorld(registry, tmp_path)
        elif request.param == "process":
            made = ProcessWorld(registry, tmp_path)
        else:
            made = DockerWorld(registry, tmp_path, docker_engine())
        try:
            yield made
        finally:
            asyncio.run(made.clean())


def run(world: World, story: Callable[[Runtime], Awaitable[None]]) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(60):
            await story(world.runtime())

    asyncio.run(scenario())


def spec(world: World, image: ImageRef | None = None, **env: str) -> ModuleSpec:
    return ModuleSpec(
        ModuleName("digits"), image or world.image, create_options=world.options, env=env
    )


async def code_of(call: Awaitable[object]) -> Code:
    with pytest.raises(FleetError) as caught:
        await call
    return caught.value.code


async def until(
    runtime: Runtime, claim: Callable[[tuple[Instance, ...]], bool]
) -> tuple[Instance, ...]:
    for _ in range(1000):
        instances = (await runtime.observe()).instances
        if claim(instances):
            return instances
        await asyncio.sleep(0.02)
    raise AssertionError("it never came true")


def test_a_pulled_image_is_there(world: World) -> None:
    async def story(runtime: Runtime) -> None:
        pulled = await runtime.pull(world.image, BEARER)
        observed = await runtime.observe()

        assert pulled.bytes_received > 0
        assert world.image.digest in observed.images
        assert observed.instances == ()

    run(world, story)


def test_pulling_twice_costs_no_bytes(world: World) -> None:
    async def story(runtime: Runtime) -> None:
        await runtime.pull(world.image, BEARER)

        assert (await runtime.pull(world.image, BEARER)).bytes_received == 0

    run(world, story)


def test_an_altered_image_is_refused_and_nothing_is_left(world: World) -> None:
    async def story(runtime: Runtime) -> None:
        altered = world.altered_image()

        assert await code_of(runtime.pull(altered, BEARER)) is Code.DIGEST_MISMATCH
        assert altered.digest not in (await runtime.observe()).images
        assert await code_of(runtime.start(spec(world, altered))) is Code.IMAGE_UNAVAILABLE

    run(world, story)


def test_an_image_nobody_has_may_come_later(world: World) -> None:
    async def story(runtime: Runtime) -> None:
        assert await code_of(runtime.pull(world.missing_image(), BEARER)) is Code.IMAGE_UNAVAILABLE

    run(world, story)


def test_a_wrong_credential_is_refused(world: World) -> None:
    async def story(runtime: Runtime) -> None:
        wrong = Credential("bearer", world.wrong_token())

        assert await code_of(runtime.pull(world.image, wrong)) is Code.REGISTRY_REFUSED

    run(world, story)


def test_an_image_by_tag_is_refused(world: World) -> None:
    async def story(runtime: Runtime) -> None:
        by_tag = ImageRef(world.image.authority, world.image.repository, "1")

        assert await code_of(runtime.pull(by_tag, BEARER)) is Code.ID_INVALID

    run(world, story)


def test_starting_before_the_pull_is_refused(world: World) -> None:
    async def story(runtime: Runtime) -> None:
        assert await code_of(runtime.start(spec(world))) is Code.IMAGE_UNAVAILABLE
        assert (await runtime.observe()).instances == ()

    run(world, story)


def test_a_started_module_runs_and_answers(world: World) -> None:
    async def story(runtime: Runtime) -> None:
        await runtime.pull(world.image, BEARER)
        started = await runtime.start(spec(world))
        observed = await runtime.observe()

        assert observed.instances == (started,)
        assert started.state is InstanceState.RUNNING
        assert (started.id, started.module) == (spec(world).instance_id, "digits")
        assert started.image == world.image.digest
        assert await world.ask(started) == 200

    run(world, story)


def test_starting_twice_is_one_instance(world: World) -> None:
    async def story(runtime: Runtime) -> None:
        await runtime.pull(world.image, BEARER)
        first = await runtime.start(spec(world))
        second = await runtime.start(spec(world))

        assert second == first
        assert (await runtime.observe()).instances == (first,)

    run(world, story)


def test_two_versions_run_beside_each_other(world: World) -> None:
    async def story(runtime: Runtime) -> None:
        await runtime.pull(world.image, BEARER)
        old = await runtime.start(spec(world))
        new = await runtime.start(spec(world, MODE="new"))

        assert old.id != new.id
        assert old.endpoint != new.endpoint
        assert {i.id for i in (await runtime.observe()).instances} == {old.id, new.id}

    run(world, story)


def test_an_exit_is_seen_with_its_code(world: World) -> None:
    async def story(runtime: Runtime) -> None:
        await runtime.pull(world.image, BEARER)
        started = await runtime.start(spec(world, TEST_EXIT="3"))
        world.exited(started.id, 3)
        (seen,) = await until(runtime, lambda found: found[0].state is InstanceState.EXITED)

        assert (seen.id, seen.exit_code, seen.endpoint) == (started.id, 3, None)

    run(world, story)


def test_an_exited_instance_is_replaced_by_the_next_start(world: World) -> None:
    async def story(runtime: Runtime) -> None:
        await runtime.pull(world.image, BEARER)
        started = await runtime.start(spec(world))
        await world.crash(started)
        await until(runtime, lambda found: found[0].state is InstanceState.EXITED)
        again = await runtime.start(spec(world))

        assert again.state is InstanceState.RUNNING
        assert [i.id for i in (await runtime.observe()).instances] == [started.id]

    run(world, story)


def test_stopping_removes_the_instance(world: World) -> None:
    async def story(runtime: Runtime) -> None:
        await runtime.pull(world.image, BEARER)
        started = await runtime.start(spec(world))
        await runtime.stop(started.id, grace_seconds=1)

        assert (await runtime.observe()).instances == ()
        assert await world.ask(started, tries=1) == 0

    run(world, story)


def test_stopping_what_is_gone_does_nothing(world: World) -> None:
    async def story(runtime: Runtime) -> None:
        await runtime.stop("digits.0123456789abcdef")

        assert (await runtime.observe()).instances == ()

    run(world, story)


def test_logs_hold_what_the_module_wrote(world: World) -> None:
    async def story(runtime: Runtime) -> None:
        await runtime.pull(world.image, BEARER)
        started = await runtime.start(spec(world))
        await world.ask(started)

        assert "module started\n" in await runtime.logs(started.id)
        assert await runtime.logs(started.id, tail=0) == ""
        assert await runtime.logs("digits.0123456789abcdef") == ""

    run(world, story)


def test_a_new_runtime_adopts_what_runs(world: World) -> None:
    async def story(runtime: Runtime) -> None:
        await runtime.pull(world.image, BEARER)
        started = await runtime.start(spec(world))
        adopted = world.runtime()

        assert (await adopted.observe()).instances == (started,)
        assert world.image.digest in (await adopted.observe()).images
        assert await adopted.start(spec(world)) == started
        await adopted.stop(started.id, grace_seconds=1)
        assert (await runtime.observe()).instances == ()

    run(world, story)


def test_removing_images_spares_what_is_kept_or_used(world: World) -> None:
    async def story(runtime: Runtime) -> None:
        used, kept, spare = world.image, world.other_image("2"), world.other_image("3")
        for image in (used, kept, spare):
            await runtime.pull(image, BEARER)
        started = await runtime.start(spec(world, used))
        await runtime.remove_images(frozenset({str(kept.digest)}))

        assert (await runtime.observe()).images == {used.digest, kept.digest}
        assert await world.ask(started) == 200

    run(world, story)


def test_a_removed_image_can_come_back(world: World) -> None:
    async def story(runtime: Runtime) -> None:
        await runtime.pull(world.image, BEARER)
        await runtime.remove_images(frozenset())
        assert (await runtime.observe()).images == frozenset()
        await runtime.pull(world.image, BEARER)

        started = await runtime.start(spec(world))

        assert started.state is InstanceState.RUNNING

    run(world, story)
