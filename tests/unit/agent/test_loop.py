"""One device, whole, in virtual time: what it does about what its hub says and its machine does."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from agent_world import (
    STRANGER,
    Disk,
    OpenHandedHub,
    VirtualClock,
    desired,
    envelope,
    manifest,
    module,
    run_virtual,
    running,
    trust,
    until,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from agent.core.backoff import Backoff
from agent.core.plan import Instance
from agent.core.restart import Restarts
from agent.courier import Courier
from agent.executor import Executor
from agent.loop import Agent, LoopSettings, Organs, Rims
from agent.memory import Memory
from agent.reporter import Reporter
from agent.updater import Hands, Updater
from agent.verifier import Verifier
from protocol import codec
from protocol.errors import Code, DeviceError, UnavailableError
from protocol.messages import Ack, Desired, DesiredGet, Reported, ReportedAck, Telemetry
from protocol.topics import DownKind, UpKind
from simulator.fake_transport import FakeTransport
from simulator.fakes import FakeMachine, FakeProber, FakeRuntime
from simulator.memory_outbox import MemoryOutbox

GOLDEN = {"x-goldenSamples": {"samples": [{"input": 1, "expected": {"digit": 7}}]}}
INPUTS = {"x-inputs": {"camera": {"directory": "camera"}}}


def right(_one: Instance, _path: str, body: bytes | None) -> tuple[int, bytes]:
    return 200, b'{"digit":7}' if body else b""


def wrong(_one: Instance, _path: str, body: bytes | None) -> tuple[int, bytes]:
    return 200, b'{"digit":3}' if body else b""


@dataclass
class World:
    """A hub, and a device whose machine and disk outlive its agent."""

    home: Path
    newest: Desired | None = None
    raw: bytes | None = None
    machine: FakeMachine = field(default_factory=lambda: FakeMachine(answer=right))
    disk: Disk = field(default_factory=Disk)
    outbox: MemoryOutbox = field(default_factory=lambda: MemoryOutbox("e1"))
    reports: list[dict[str, Any]] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)
    background: tuple[Callable[[], Coroutine[Any, Any, None]], ...] = ()
    on_acknowledged: Callable[[str, Sequence[tuple[int, int]]], None] | None = None
    transport: FakeTransport = field(init=False)

    # ---- the hub ---------------------------------------------------------------------------------

    def hear(self, kind: UpKind, body: bytes) -> None:
        match kind:
            case UpKind.REPORTED:
                report = codec.decode(body, Reported)
                self.reports.append(report.reported)
                self.say(DownKind.REPORTED_ACK, ReportedAck(report.revision))
            case UpKind.DESIRED_GET:
                have = codec.decode(body, DesiredGet).have
                self.asked.append(have)
                if self.newest is not None and self.newest.version != have:
                    self.transport.send(DownKind.DESIRED, envelope(self.newest))
            case UpKind.TELEMETRY:
                batch = codec.decode(body, Telemetry)
                self.records += [record.body for record in batch.records]
                first, last = batch.records[0].seq, batch.records[-1].seq
                self.say(DownKind.ACK, Ack(batch.epoch, [(first, last)]))
            case UpKind.STATUS:
                pass

    def say(self, kind: DownKind, message: msgspec.Struct) -> None:
        self.transport.send(kind, codec.encode(message))

    def deploy(self, version: int, **modules: dict[str, Any]) -> None:
        self.newest = desired(version, modules or {"digits": module(version, **GOLDEN)})
        self.transport.send(DownKind.DESIRED, envelope(self.newest))

    # ---- the device ------------------------------------------------------------------------------

    def agent(self) -> Agent:
        clock = VirtualClock()
        runtime, prober = FakeRuntime(clock, self.machine), FakeProber(self.machine)
        memory = Memory(self.disk, trust())
        executor = Executor(runtime, OpenHandedHub(), memory.count_bytes)
        verifier = Verifier(runtime, prober, clock)
        hands = Hands(runtime, executor, verifier, clock, Backoff(), Random(1))  # noqa: S311 - jitter
        acting, wake = asyncio.Lock(), asyncio.Event()
        self.transport = FakeTransport(self.hear)
        organs = Organs(
            memory=memory,
            updater=Updater(memory, hands, acting, wake.set),
            executor=executor,
            courier=Courier(self.outbox, self.transport, clock, self.on_acknowledged),
            reporter=Reporter(memory, self.transport, clock),
            restarts=Restarts(10.0),
            acting=acting,
            wake=wake,
        )
        settings = LoopSettings(
            version="0.1.0",
            inputs=self.home,
            on_report=self.told.append,
            background=self.background,
        )
        return Agent(Rims(runtime, self.transport, prober, self.outbox, clock), organs, settings)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run an agent; when it ends, nothing of it goes on, and no part of it crashed."""
        before = asyncio.all_tasks()
        with capture_logs() as events:
            task = asyncio.create_task(self.agent().run())
            await asyncio.sleep(0.1)
            yield
            assert not task.done()
            task.cancel()
            await asyncio.wait([task])
        assert task.cancelled()
        assert asyncio.all_tasks() == before
        assert [event for event in events if "crashed" in event["event"]] == []

    def report(self) -> dict[str, Any]:
        return self.reports[-1] if self.reports else {}

    def settled(self, version: int) -> Callable[[], bool]:
        return lambda: self.report().get("lastDesiredVersion") == version

    def module(self, name: str = "digits") -> dict[str, Any]:
        found: dict[str, Any] = self.report()["modules"][name]
        return found

    def only(self) -> str:
        (one,) = running(self.machine)
        return one


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_desired_state_is_pulled_started_proved_and_reported(world: World) -> None:
    async def scenario() -> None:
        async with world.running():
            world.deploy(1)
            await until(world.settled(1))
            assert world.report()["lastDesiredStatus"] == {"code": 200, "description": ""}
            await until(lambda: world.module()["runtimeStatus"] == "running")

    run_virtual(scenario())

    assert world.report()["x-update"]["state"] == "succeeded"
    assert world.report()["x-bytesPulled"] == 1000
    assert world.told[-1] == world.report()
    assert len(running(world.machine)) == 1


def test_a_device_asks_for_its_desired_state_when_it_connects(world: World) -> None:
    async def scenario() -> None:
        world.newest = desired(4, {"digits": module(4)})
        async with world.running():
            await until(world.settled(4))
        async with world.running():
            await asyncio.sleep(1)

    run_virtual(scenario())

    assert (world.asked[0], world.asked[-1]) == (0, 4)


def test_a_bad_version_is_rolled_back_and_the_good_one_never_stops(world: World) -> None:
    async def scenario() -> str:
        async with world.running():
            world.deploy(1)
            await until(world.settled(1))
            good = world.only()
            world.machine.answer = lambda one, path, body: (
                right(one, path, body) if one.id == good else wrong(one, path, body)
            )
            world.deploy(2)
            await until(world.settled(2))
            return good

    good = run_virtual(scenario())

    status, update = world.report()["lastDesiredStatus"], world.report()["x-update"]
    assert (status["code"], update["state"], update["code"]) == (
        500,
        "rolled-back",
        "golden-mismatch",
    )
    assert "$.digit is 3, expected 7" in status["description"]
    assert (world.only(), good in world.machine.stops) == (good, False)
    assert world.module()["settings"]["image"].endswith("1")


def test_a_module_that_ends_is_started_again_after_its_delay(world: World) -> None:
    async def scenario() -> tuple[float, dict[str, Any]]:
        async with world.running():
            world.deploy(1)
            await until(world.settled(1))
            one = world.only()
            loop = asyncio.get_running_loop()
            began = loop.time()
            world.machine.exit(one, 3)
            await until(lambda: world.module()["runtimeStatus"] == "backoff")
            resting = world.module()
            await until(lambda: one in running(world.machine))
            took = loop.time() - began
            await until(lambda: world.module()["restartCount"] == 1)
            return took, resting

    took, resting = run_virtual(scenario())

    assert 10 <= took <= 12.1
    assert resting["exitCode"] == 3
    assert world.module()["runtimeStatus"] == "running"


def test_a_device_works_on_while_its_hub_is_away(world: World) -> None:
    async def scenario() -> None:
        async with world.running():
            world.deploy(1, digits=module(1, **INPUTS))
            await until(world.settled(1))
            world.transport.cut()
            world.machine.exit(world.only(), 1)
            (world.home / "camera").mkdir(exist_ok=True)
            (world.home / "camera" / "a").write_bytes(b"1")
            await asyncio.sleep(60)
            assert (len(running(world.machine)), world.records) == (1, [])
            assert world.outbox.counts().waiting == 1
            world.newest = desired(2, {"digits": module(2)})
            world.transport.heal()
            await until(world.settled(2))
            await until(lambda: world.outbox.counts().waiting == 0)

    run_virtual(scenario())

    assert world.records == [b'{"digit":7}']


def test_a_refused_document_is_reported_until_a_good_one_comes(world: World) -> None:
    async def scenario() -> dict[str, Any]:
        async with world.running():
            world.deploy(1)
            await until(world.settled(1))
            world.transport.send(DownKind.DESIRED, envelope(desired(2), key=STRANGER))
            await until(lambda: "x-refused" in world.report())
            refused = world.report()
            world.transport.send(DownKind.DESIRED, envelope(desired(1)))  # the one it holds
            await until(lambda: "x-refused" not in world.report())
            return refused

    refused = run_virtual(scenario())

    assert refused["x-refused"]["code"] == "signature-invalid"
    assert (refused["lastDesiredStatus"]["code"], refused["lastDesiredVersion"]) == (400, 1)
    assert world.report()["lastDesiredStatus"]["code"] == 200


def test_a_document_with_an_image_that_is_none_is_refused_at_the_door(world: World) -> None:
    async def scenario() -> None:
        async with world.running():
            bad = manifest({"digits": module(1, settings={"image": "Not An Image"})})
            world.transport.send(DownKind.DESIRED, envelope(desired(1, content=bad)))
            await until(lambda: "x-refused" in world.report())

    run_virtual(scenario())

    assert world.report()["x-refused"]["code"] == "id-invalid"


def test_an_old_copy_of_a_document_is_no_news(world: World) -> None:
    async def scenario() -> None:
        async with world.running():
            world.deploy(2)
            await until(world.settled(2))
            world.transport.send(DownKind.DESIRED, envelope(desired(1)))
            await asyncio.sleep(5)

    run_virtual(scenario())

    assert "x-refused" not in world.report()
    assert world.report()["lastDesiredVersion"] == 2


def test_a_full_disk_delays_a_document_and_stops_nothing(world: World) -> None:
    async def scenario() -> None:
        async with world.running():
            world.deploy(1)
            await until(world.settled(1))
            one = world.only()
            world.disk.refusals = 30
            world.deploy(2)
            world.machine.exit(one, 1)
            await until(lambda: one in running(world.machine), seconds=20)
            await until(world.settled(2), seconds=25)  # long before it asks the hub again

    run_virtual(scenario())

    assert world.report()["x-update"]["state"] == "succeeded"


def test_a_download_that_fails_says_so_and_goes_on_later(world: World) -> None:
    async def scenario() -> dict[str, Any]:
        failures = [UnavailableError("registry away", code=Code.IMAGE_UNAVAILABLE)] * 4
        world.machine.pull_failures = deque(failures)
        async with world.running():
            world.deploy(1)
            await until(lambda: "code" in world.report().get("x-update", {}))
            hindered: dict[str, Any] = world.report()["x-update"]
            await until(world.settled(1))
            return hindered

    hindered = run_virtual(scenario())

    assert (hindered["state"], hindered["step"], hindered["code"]) == (
        "in-progress",
        "fetch",
        "image-unavailable",
    )
    assert "code" not in world.report()["x-update"]


def test_a_newer_document_takes_the_place_of_one_under_way(world: World) -> None:
    async def scenario() -> None:
        async with world.running():
            world.machine.answer = lambda _one, _path, _body: (503, b"")
            probe = {"x-probes": {"ready": {"path": "/ready", "timeoutSeconds": 3600}}}
            world.deploy(1, digits=module(1, **probe))
            await until(lambda: world.report().get("x-update", {}).get("step") == "verify")
            world.machine.answer = right
            world.deploy(2)
            await until(world.settled(2), seconds=30)

    run_virtual(scenario())

    assert world.report()["x-update"]["state"] == "succeeded"
    assert len(running(world.machine)) == 1


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.11, 0.3, 1.0, 3.0])
def test_an_agent_that_is_started_again_goes_on(world: World, seconds: float) -> None:
    async def scenario() -> None:
        polls = [0]

        def slow(_one: Instance, _path: str, body: bytes | None) -> tuple[int, bytes]:
            polls[0] += 1
            return (503, b"") if polls[0] < 15 else (200, b'{"digit":7}' if body else b"")

        world.machine.answer = slow
        probe = {"x-probes": {"ready": {"path": "/ready"}}}
        async with world.running():
            world.deploy(1, digits=module(1, **GOLDEN, **probe))
            await asyncio.sleep(seconds)
        async with world.running():
            await until(world.settled(1))

    run_virtual(scenario())

    assert world.report()["lastDesiredStatus"]["code"] == 200
    assert len(running(world.machine)) == 1
    assert world.machine.stops == []


def test_modules_outlive_their_agent(world: World) -> None:
    async def scenario() -> None:
        async with world.running():
            world.deploy(1)
            await until(world.settled(1))
        assert len(running(world.machine)) == 1
        async with world.running():
            await asyncio.sleep(30)

    run_virtual(scenario())

    assert (world.machine.stops, len(world.machine.pulls)) == ([], 1)


def test_modules_start_in_their_order(world: World) -> None:
    async def scenario() -> None:
        async with world.running():
            world.deploy(
                1,
                a=module(1, startupOrder=2),
                b=module(1, startupOrder=0),
                c=module(1, startupOrder=1),
            )
            await until(world.settled(1))

    run_virtual(scenario())

    ports = {one.module: one.endpoint for one in world.machine.instances.values()}
    assert sorted(ports, key=lambda name: str(ports[name])) == ["b", "c", "a"]


def test_one_module_that_cannot_start_does_not_keep_the_others_down(world: World) -> None:
    async def scenario() -> None:
        async with world.running():
            world.deploy(1, a=module(1), b=module(2))
            await until(world.settled(1))
            failure = DeviceError("no memory", code=Code.MODULE_START_FAILED)
            world.machine.start_failures = deque([failure])
            for one in list(running(world.machine)):
                world.machine.exit(one, 1)
            await until(lambda: len(running(world.machine)) == 1)
            assert world.machine.start_failures == deque()
            await until(
                lambda: {world.module(n)["runtimeStatus"] for n in "ab"} == {"running", "backoff"}
            )
            await until(lambda: len(running(world.machine)) == 2)

    run_virtual(scenario())


def test_a_module_that_cannot_start_is_not_tried_every_second(world: World) -> None:
    async def scenario() -> int:
        async with world.running():
            world.deploy(1)
            await until(world.settled(1))
            failure = DeviceError("no memory", code=Code.MODULE_START_FAILED)
            world.machine.start_failures = deque([failure] * 1000)
            world.machine.instances.clear()
            await asyncio.sleep(200)
            return 1000 - len(world.machine.start_failures)

    assert run_virtual(scenario()) in range(3, 7)


def test_an_image_that_vanished_is_pulled_again(world: World) -> None:
    async def scenario() -> None:
        async with world.running():
            world.deploy(1)
            await until(world.settled(1))
            one = world.only()
            world.machine.images.clear()
            failure = UnavailableError("registry away", code=Code.IMAGE_UNAVAILABLE)
            world.machine.pull_failures = deque([failure])
            world.machine.exit(one, 1)
            await until(lambda: one in running(world.machine))

    run_virtual(scenario())

    assert len(world.machine.pulls) == 3


def test_an_image_that_vanishes_during_an_update_is_pulled_again(world: World) -> None:
    async def scenario() -> None:
        async with world.running():
            world.deploy(1)
            await until(world.settled(1))
            world.machine.offered = {f"sha256:{1:064x}": 5}  # version 2 never arrives
            world.deploy(2)
            await until(lambda: "code" in world.report().get("x-update", {}))
            one = world.only()
            world.machine.images.clear()
            world.machine.exit(one, 1)
            await until(lambda: one in running(world.machine))

    run_virtual(scenario())


def test_an_engine_that_is_down_is_reported_and_not_the_end(world: World) -> None:
    async def scenario() -> dict[str, Any]:
        async with world.running():
            world.deploy(1)
            await until(world.settled(1))
            world.machine.is_up = False
            await until(lambda: world.module()["runtimeStatus"] == "unknown")
            down = world.report()
            world.machine.is_up = True
            await until(lambda: world.module()["runtimeStatus"] == "running")
            return down

    assert run_virtual(scenario())["lastDesiredStatus"]["code"] == 200


def test_what_is_not_wanted_any_more_is_stopped(world: World) -> None:
    async def scenario() -> None:
        async with world.running():
            world.deploy(1, a=module(1), b=module(2))
            await until(world.settled(1))
            world.deploy(2, a=module(1))
            await until(world.settled(2))
            await until(lambda: len(running(world.machine)) == 1)

    run_virtual(scenario())

    assert [name.partition(".")[0] for name in world.machine.stops] == ["b"]


def test_inputs_follow_the_manifest(world: World) -> None:
    async def scenario() -> None:
        (world.home / "camera").mkdir()
        async with world.running():
            world.deploy(1, digits=module(1, **INPUTS))
            await until(world.settled(1))
            (world.home / "camera" / "a").write_bytes(b"1")
            await until(lambda: world.records)
            world.deploy(2, digits=module(1))
            await until(world.settled(2))
            (world.home / "camera" / "b").write_bytes(b"1")
            await asyncio.sleep(30)

    run_virtual(scenario())

    assert (len(world.records), (world.home / "camera" / "b").exists()) == (1, True)


def test_a_folder_that_cannot_be_read_does_not_end_the_agent(world: World) -> None:
    async def scenario() -> None:
        (world.home / "camera").write_bytes(b"a file where the folder should be")
        async with world.running():
            world.deploy(1, digits=module(1, **INPUTS))
            await until(world.settled(1))
            await asyncio.sleep(5)
            (world.home / "camera").unlink()
            await asyncio.sleep(5)
            (world.home / "camera" / "a").write_bytes(b"1")
            await until(lambda: world.records)

    run_virtual(scenario())


@pytest.mark.parametrize("kind", list(DownKind))
@pytest.mark.parametrize("body", [b"", b"{}", b"\xff", b"[" * 10_000, b'{"revision":1e999}'])
def test_a_message_that_cannot_be_read_does_no_harm(
    world: World, kind: DownKind, body: bytes
) -> None:
    async def scenario() -> None:
        async with world.running():
            world.transport.send(kind, body)
            await asyncio.sleep(1)
            world.deploy(1)
            await until(world.settled(1))

    run_virtual(scenario())


def test_a_part_that_crashes_is_begun_again_and_ends_nothing(world: World) -> None:
    tries: list[float] = []

    async def crashing() -> None:
        tries.append(asyncio.get_running_loop().time())
        if len(tries) < 3:
            raise ValueError("a defect")

    async def scenario() -> list[str]:
        world.background = (crashing,)
        with capture_logs() as events:
            task = asyncio.create_task(world.agent().run())
            await asyncio.sleep(5)
            world.deploy(1)
            await until(world.settled(1))
            assert not task.done()
            task.cancel()
            await asyncio.wait([task])
        return [e["event"] for e in events if "crashed" in e["event"]]

    assert run_virtual(scenario()) == ["part.crashed"] * 2
    assert len(tries) == 3


def test_a_defect_in_a_step_ends_in_the_old_set_and_is_reported(world: World) -> None:
    async def scenario() -> None:
        def defect(_one: Instance, _path: str, _body: bytes | None) -> tuple[int, bytes]:
            raise KeyError("nobody thought of it")

        world.machine.answer = defect
        with capture_logs():
            task = asyncio.create_task(world.agent().run())
            await asyncio.sleep(0.1)
            world.deploy(1)
            await until(world.settled(1))
            task.cancel()
            await asyncio.wait([task])

    run_virtual(scenario())

    assert world.report()["x-update"]["code"] == "internal"
    assert world.report()["x-update"]["state"] == "failed"
    assert running(world.machine) == set()


def test_failures_are_logged_without_what_modules_keep_secret(world: World) -> None:
    async def scenario() -> str:
        with capture_logs() as events:
            task = asyncio.create_task(world.agent().run())
            await asyncio.sleep(0.1)
            world.deploy(1, digits=module(1, env={"TOKEN": {"value": "hush-hush"}}))
            await until(world.settled(1))
            failure = DeviceError("no memory", code=Code.MODULE_START_FAILED)
            world.machine.start_failures = deque([failure])
            world.machine.instances.clear()
            await asyncio.sleep(20)
            task.cancel()
            await asyncio.wait([task])
        return str(events)

    logged = run_virtual(scenario())

    assert "step.failed" in logged
    assert "hush-hush" not in logged


def test_a_message_whose_handling_crashes_does_not_end_the_connection(world: World) -> None:
    """A ledger on a full disk, say; the record stays and is acknowledged later."""
    failures = [OSError("no space left")] * 2

    def write(_epoch: str, _ranges: Sequence[tuple[int, int]]) -> None:
        if failures:
            raise failures.pop()

    async def scenario() -> list[str]:
        world.on_acknowledged = write
        world.outbox.add("digits", "results", 1, b"x", {})
        with capture_logs() as events:
            task = asyncio.create_task(world.agent().run())
            await until(lambda: world.outbox.counts().waiting == 0)
            assert not task.done()
            task.cancel()
            await asyncio.wait([task])
        return [e["event"] for e in events if "crashed" in e["event"]]

    assert run_virtual(scenario()) == ["message.crashed"] * 2


def test_images_that_cannot_be_removed_are_no_obstacle(world: World) -> None:
    def last_answer(one: Instance, path: str, body: bytes | None) -> tuple[int, bytes]:
        world.machine.is_up = body is None  # the engine goes away once the module is proved
        return right(one, path, body)

    async def scenario() -> dict[str, Any]:
        async with world.running():
            world.machine.answer = last_answer
            world.deploy(1)
            await until(world.settled(1))
            away = world.module()
            world.machine.is_up = True
            await until(lambda: world.module()["runtimeStatus"] == "running")
            return away

    assert run_virtual(scenario())["runtimeStatus"] == "unknown"
    assert world.report()["x-update"]["state"] == "succeeded"


# ---- any story, and its end ---------------------------------------------------------------------


class Story:
    """A device to which things happen; every document is one of three modules, two of them kept."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.version = 0
        self.bad: set[str] = set()
        world.machine.answer = self.answer

    def answer(self, one: Instance, path: str, body: bytes | None) -> tuple[int, bytes]:
        return (wrong if one.image in self.bad else right)(one, path, body)

    def deploy(self, *, good: bool = True) -> None:
        self.version += 1
        if not good:
            self.bad.add(f"sha256:{1000 + self.version:064x}")
        digits = module(1000 + self.version, **GOLDEN)
        self.world.deploy(
            self.version, digits=digits, beat=module(2), seen=module(self.version % 2)
        )

    def deploy_what_cannot_start(self) -> None:
        self.world.machine.start_failures.append(
            DeviceError("no memory", code=Code.MODULE_START_FAILED)
        )
        self.deploy()

    def send_an_old_copy(self) -> None:
        if self.version > 1:
            old = desired(self.version - 1, {"digits": module(9)})
            self.world.transport.send(DownKind.DESIRED, envelope(old))

    def end_a_module(self) -> None:
        for one in sorted(running(self.world.machine))[:1]:
            self.world.machine.exit(one, 1)


EVENTS: dict[str, Callable[[Story], object]] = {
    "deploy good": Story.deploy,
    "deploy bad": lambda story: story.deploy(good=False),
    "deploy what cannot start": Story.deploy_what_cannot_start,
    "send nonsense": lambda story: story.world.transport.send(DownKind.DESIRED, b"nonsense"),
    "send an old copy": Story.send_an_old_copy,
    "a module ends": Story.end_a_module,
    "modules vanish": lambda story: story.world.machine.instances.clear(),
    "images vanish": lambda story: story.world.machine.images.clear(),
    "engine down": lambda story: setattr(story.world.machine, "is_up", False),
    "engine up": lambda story: setattr(story.world.machine, "is_up", True),
    "hub away": lambda story: story.world.transport.cut(),
    "hub back": lambda story: story.world.transport.heal(),
    "disk full": lambda story: setattr(story.world.disk, "refusals", 3),
    "agent restarts": lambda _story: None,
}


@settings(max_examples=60)
@given(
    script=st.lists(
        st.tuples(st.sampled_from(list(EVENTS)), st.sampled_from([0.0, 0.2, 1.0, 7.0])), max_size=14
    )
)
def test_after_any_story_the_newest_document_runs_and_nothing_else(
    script: list[tuple[str, float]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    async def scenario() -> None:
        left = list(script)
        while left:
            async with world.running():
                while left:
                    event, pause = left.pop(0)
                    if event == "agent restarts":
                        break
                    EVENTS[event](story)
                    await asyncio.sleep(pause)
        world.machine.is_up = True
        world.disk.refusals = 0
        world.machine.start_failures.clear()
        async with world.running():
            story.deploy()
            await until(world.settled(story.version), seconds=2000)
            await until(lambda: len(running(world.machine)) == 3, seconds=2000)
            await asyncio.sleep(2)
            assert world.report()["lastDesiredStatus"]["code"] == 200

    world = World(tmp_path_factory.mktemp("home"))
    story = Story(world)
    run_virtual(scenario())

    assert {one.image for one in world.machine.instances.values()} == {
        f"sha256:{n:064x}" for n in (1000 + story.version, 2, story.version % 2)
    }
    assert len(world.machine.instances) == 3
