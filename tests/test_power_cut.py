"""The update under every fault: it ends in the whole old or the whole new set, and says why.

Memory, updater, verifier and executor are the real ones; the machine below survives its agent, and
the disk dies after the write it is told to.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

import pytest
from agent_world import (
    Disk,
    OpenHandedHub,
    PowerCutError,
    VirtualClock,
    desired,
    envelope,
    module,
    run_virtual,
    running,
    trust,
)

from agent.core import report
from agent.core.backoff import Backoff
from agent.core.plan import Instance, InstanceState, ModuleSpec, Observed
from agent.core.planner import plan
from agent.core.ports import Pulled
from agent.core.report import Facts
from agent.core.restart import Restarts
from agent.core.update import MAX_ENTRIES, TERMINAL, State
from agent.executor import Executor
from agent.memory import Memory
from agent.updater import Hands, Updater
from agent.verifier import Verifier
from protocol.errors import Code, DeviceError, FleetError, UnavailableError
from protocol.ids import ImageRef
from protocol.messages import Credential
from simulator.fakes import FakeMachine, FakeProber, FakeRuntime

GOLDEN = {"samples": [{"input": 1, "expected": {}}]}
OLD = desired(1, {"digits": module(1), "beat": module(2)})
NEW = desired(2, {"digits": module(3, **{"x-goldenSamples": GOLDEN}), "fresh": module(4)})
NEWEST = desired(3, {"digits": module(5)})


@dataclass
class Fault:
    """What goes wrong at which step, and how often; `work` raises or hangs."""

    step: str
    times: int
    work: Callable[[], BaseException] | None
    entered: int = 0

    async def strike(self, step: str) -> None:
        if step != self.step or self.entered >= self.times:
            return
        self.entered += 1
        if self.work is None:
            await asyncio.Event().wait()
        else:
            raise self.work()


class FaultyRuntime(FakeRuntime):
    """A FakeRuntime that is struck where the update works with it."""

    def __init__(self, machine: FakeMachine, fault: Fault, step: Callable[[], str]) -> None:
        super().__init__(VirtualClock(), machine)
        self._fault = fault
        self._step = step

    async def pull(self, image: ImageRef, credential: Credential) -> Pulled:
        if self._step() == "fetch":
            await self._fault.strike("fetch")
        return await super().pull(image, credential)

    async def start(self, spec: ModuleSpec) -> Instance:
        if self._step() == "install":
            await self._fault.strike("install")
        return await super().start(spec)

    async def stop(self, instance_id: str, *, grace_seconds: float = 10.0) -> None:
        if self._step() == "rollback":
            await self._fault.strike("rollback")
        await super().stop(instance_id, grace_seconds=grace_seconds)


class FaultyProber(FakeProber):
    """A FakeProber that is struck while a module is proved."""

    def __init__(self, machine: FakeMachine, fault: Fault) -> None:
        super().__init__(machine)
        self._fault = fault

    async def request(
        self, url: str, body: bytes | None, *, timeout_seconds: float
    ) -> tuple[int, bytes]:
        if body is not None:
            await self._fault.strike("verify")
        return await super().request(url, body, timeout_seconds=timeout_seconds)


@dataclass
class Device:
    """What stays when the agent dies."""

    fault: Fault
    disk: Disk = field(default_factory=Disk)
    machine: FakeMachine = field(default_factory=FakeMachine)
    starts: int = 0
    mixed: list[set[str]] = field(default_factory=list)

    def boot(self) -> tuple[Memory, Updater, FaultyRuntime]:
        self.starts += 1
        memory = Memory(self.disk, trust())
        runtime = FaultyRuntime(
            self.machine, self.fault, lambda: str(memory.progress and memory.progress.state.value)
        )
        clock = VirtualClock()
        executor = Executor(runtime, OpenHandedHub(), memory.count_bytes)
        verifier = Verifier(runtime, FaultyProber(self.machine, self.fault), clock)
        hands = Hands(runtime, executor, verifier, clock, Backoff(), Random(1))  # noqa: S311 - jitter
        return memory, Updater(memory, hands, asyncio.Lock(), self.look(memory)), runtime

    def look(self, memory: Memory) -> Callable[[], None]:
        """After every step: whatever counts as good must be one document, whole."""

        def moved() -> None:
            good = set(memory.good.specs) if memory.good else set()
            if good and good not in ({"digits", "beat"}, {"digits", "fresh"}, {"digits"}):
                self.mixed.append({str(name) for name in good})

        return moved

    async def install(self, document: bytes) -> Memory:
        memory, updater, _ = self.boot()
        memory.offer(document, VirtualClock().now())
        await updater.run()
        await self.supervise(memory, updater)
        return memory

    async def supervise(self, memory: Memory, updater: Updater) -> None:
        """What the loop does between updates: bring together what is wanted and what is there."""
        runtime = FakeRuntime(VirtualClock(), self.machine)
        executor = Executor(runtime, OpenHandedHub(), memory.count_bytes)
        observed = await runtime.observe()
        for step in plan(updater.wanted(), observed, Restarts(), VirtualClock().now()):
            await executor.execute(step)

    async def live(self, patience_seconds: float = 3600.0) -> Memory:
        """Start the agent whenever it died, until the update has ended; cut what hangs."""
        for _ in range(MAX_ENTRIES * 2):
            try:
                memory, updater, _ = self.boot()
                async with asyncio.timeout(patience_seconds):
                    await updater.run()
            except PowerCutError:
                continue
            except TimeoutError:
                continue
            await self.supervise(memory, updater)
            return memory
        raise AssertionError("the update never ends")

    def says(self, memory: Memory) -> dict[str, str]:
        """Return the report's part about the update."""
        told = report.build(
            Facts(
                agent_version="0",
                runtime="simulated",
                bytes_pulled=0,
                good=memory.good,
                accepted=memory.accepted,
                progress=memory.progress,
                hindrance=None,
                refusal=None,
                observed=Observed(frozenset(), ()),
                restarts=lambda _id: 0,
            )
        )
        update: dict[str, str] = told["x-update"]
        return update


def whole(memory: Memory) -> set[str]:
    assert memory.good is not None
    return {spec.instance_id for spec in memory.good.specs.values()}


async def updated(device: Device) -> Memory:
    """Install the old set, then the new one under the device's fault."""
    times, device.fault.times = device.fault.times, 0
    memory = await device.install(envelope(OLD))
    assert running(device.machine) == whole(memory)
    device.fault.times, device.disk.update_writes = times, 0
    memory.offer(envelope(NEW), VirtualClock().now())
    return await device.live()


ERROR: Callable[[], BaseException] = lambda: DeviceError("it broke", code=Code.PROBE_FAILED)  # noqa: E731
LATER: Callable[[], BaseException] = lambda: UnavailableError("not now", code=Code.BUSY)  # noqa: E731
BUG: Callable[[], BaseException] = lambda: ValueError("nobody thought of it")  # noqa: E731
ALWAYS = 10_000
FAULTS: dict[str, tuple[int, Callable[[], BaseException] | None]] = {
    "kill once": (1, PowerCutError),
    "kill forever": (ALWAYS, PowerCutError),
    "error once": (1, ERROR),
    "error forever": (ALWAYS, ERROR),
    "retryable error once": (1, LATER),
    "defect once": (1, BUG),
    "defect forever": (ALWAYS, BUG),
    "hang": (1, None),
    "hang forever": (ALWAYS, None),
}
SURVIVED = ("kill once", "retryable error once", "hang")
GIVEN_UP = ("kill forever", "hang forever", "defect once", "defect forever")
ERRORS = ("error once", "error forever")
# step, fault -> (the version that counts as good in the end, the code that is reported)
ENDS: dict[tuple[str, str], tuple[int, str]] = {
    **{(step, fault): (2, "") for step in ("fetch", "install") for fault in SURVIVED},
    **{(s, fault): (1, "internal") for s in ("fetch", "install", "verify") for fault in GIVEN_UP},
    **{(s, fault): (1, "probe-failed") for s in ("fetch", "install") for fault in ERRORS},
    **{("verify", fault): (2, "") for fault in ("kill once", "hang")},
    # a golden sample that cannot be asked is a sample that is wrong
    **{("verify", fault): (1, "golden-mismatch") for fault in (*ERRORS, "retryable error once")},
}


@pytest.mark.parametrize(("step", "name"), list(ENDS))
def test_a_fault_on_the_way_forward_ends_in_one_whole_set(step: str, name: str) -> None:
    times, work = FAULTS[name]
    device = Device(Fault(step, times, work))

    memory = run_virtual(updated(device))

    good, code = ENDS[step, name]
    says = device.says(memory)
    assert memory.good is not None
    assert (memory.good.version.version, says.get("code", "")) == (good, code)
    assert says["state"] == ("succeeded" if good == 2 else "rolled-back")
    assert running(device.machine) == whole(memory)
    assert device.mixed == []
    assert device.disk.update_writes <= MAX_ENTRIES


@pytest.mark.parametrize(
    "name", [f for f in FAULTS if f not in ("error forever", "defect forever")]
)
def test_a_fault_on_the_way_back_ends_in_the_old_set(name: str) -> None:
    times, work = FAULTS[name]
    device = Device(Fault("rollback", times, work))
    device.machine.answer = lambda one, _path, body: (
        (200, b"[]") if body and one.module == "digits" else (200, b"{}")
    )

    memory = run_virtual(updated(device))

    says = device.says(memory)
    assert (says["state"], says["code"]) == ("rolled-back", "golden-mismatch")
    assert running(device.machine) == whole(memory)
    assert memory.good is not None
    assert memory.good.version.version == 1
    assert device.disk.update_writes <= MAX_ENTRIES


def test_a_way_back_that_never_works_says_so_and_writes_nothing() -> None:
    """It is tried again for ever, and the planner keeps what was good running meanwhile."""
    device = Device(Fault("rollback", ALWAYS, ERROR))
    device.machine.answer = lambda _one, _path, body: (200, b"[]" if body else b"{}")

    async def scenario() -> tuple[Memory, int]:
        times, device.fault.times = device.fault.times, 0
        memory = await device.install(envelope(OLD))
        device.fault.times = times
        memory.offer(envelope(NEW), VirtualClock().now())
        memory, updater, _ = device.boot()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await updater.run()
        writes = device.disk.update_writes
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await updater.run()
        await device.supervise(memory, updater)
        return memory, device.disk.update_writes - writes

    memory, writes = run_virtual(scenario())

    says = device.says(memory)
    assert (says["state"], says["step"], says["code"]) == (
        "in-progress",
        "rollback",
        "golden-mismatch",
    )
    assert (running(device.machine), writes) == (whole(memory), 0)


# ---- the disk -----------------------------------------------------------------------------------


@pytest.mark.parametrize("works", [True, False])
@pytest.mark.parametrize("cut_after", range(1, 12))
def test_a_power_cut_after_any_write_changes_nothing(cut_after: int, *, works: bool) -> None:
    device = Device(Fault("never", 0, None))
    if not works:
        device.machine.answer = lambda _one, _path, body: (200, b"[]" if body else b"{}")

    async def scenario() -> Memory:
        memory = await device.install(envelope(OLD))
        device.disk.dies_after = cut_after
        with suppress(PowerCutError):
            memory.offer(envelope(NEW), VirtualClock().now())
        return await device.live()

    memory = run_virtual(scenario())

    assert device.says(memory)["state"] == ("succeeded" if works else "rolled-back")
    assert running(device.machine) == whole(memory)
    assert device.mixed == []


@pytest.mark.parametrize("cut_every", range(1, 5))
def test_a_device_whose_power_fails_again_and_again_ends_whole(cut_every: int) -> None:
    device = Device(Fault("never", 0, None))

    async def scenario() -> Memory:
        memory = await device.install(envelope(OLD))
        device.disk.update_writes = 0
        memory.offer(envelope(NEW), VirtualClock().now())
        for _ in range(MAX_ENTRIES * 2):
            device.disk.dies_after = cut_every
            try:
                memory, updater, _ = device.boot()
                await updater.run()
            except PowerCutError:
                continue
            device.disk.dies_after = None
            await device.supervise(memory, updater)
            return memory
        raise AssertionError("the update never ends")

    memory = run_virtual(scenario())

    assert memory.progress is not None
    assert memory.progress.state in TERMINAL
    assert running(device.machine) == whole(memory)
    assert device.disk.update_writes <= MAX_ENTRIES


@pytest.mark.parametrize("first_refused", range(1, 8))
def test_a_disk_that_cannot_be_written_delays_the_update_only(first_refused: int) -> None:
    device = Device(Fault("never", 0, None))

    async def scenario() -> Memory:
        memory = await device.install(envelope(OLD))
        memory.offer(envelope(NEW), VirtualClock().now())
        memory, updater, _ = device.boot()
        written, put = itertools.count(1), device.disk.put

        class Refusing(Disk):
            def put(self, values: dict[str, bytes | None]) -> None:
                if first_refused <= next(written) < first_refused + 5:
                    raise UnavailableError("no space is left", code=Code.DISK_FULL)
                put(values)

        memory._store = Refusing()
        memory._store._values = device.disk._values
        await updater.run()
        await device.supervise(memory, updater)
        return memory

    memory = run_virtual(scenario())

    assert device.says(memory)["state"] == "succeeded"
    assert running(device.machine) == whole(memory)


def test_a_full_disk_at_the_start_does_not_keep_the_agent_from_starting() -> None:
    device = Device(Fault("never", 0, None))

    async def scenario() -> Memory:
        memory = await device.install(envelope(OLD))
        memory.offer(envelope(NEW), VirtualClock().now())
        device.disk.refusals = 1
        return await device.live()

    assert device.says(run_virtual(scenario()))["state"] == "succeeded"


def test_a_document_that_cannot_be_stored_changes_nothing() -> None:
    device = Device(Fault("never", 0, None))

    async def scenario() -> Memory:
        memory = await device.install(envelope(OLD))
        device.disk.refusals = 1
        with pytest.raises(FleetError, match="no space"):
            memory.offer(envelope(NEW), VirtualClock().now())
        return memory

    memory = run_virtual(scenario())

    assert memory.accepted is memory.good or memory.accepted == memory.good
    assert memory.floor.version == 1


# ---- a newer document ---------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["fetch", "install", "verify"])
def test_a_newer_document_takes_the_place_of_one_under_way(step: str) -> None:
    device = Device(Fault(step, 1, None))

    async def scenario() -> Memory:
        times, device.fault.times = device.fault.times, 0
        memory = await device.install(envelope(OLD))
        device.fault.times = times
        memory, updater, _ = device.boot()
        memory.offer(envelope(NEW), VirtualClock().now())
        task = asyncio.create_task(updater.run())
        await asyncio.sleep(100)
        assert device.fault.entered == 1
        memory.offer(envelope(NEWEST), VirtualClock().now())
        task.cancel()
        await asyncio.wait([task])
        await updater.run()
        await device.supervise(memory, updater)
        return memory

    memory = run_virtual(scenario())

    assert memory.good is not None
    assert memory.good.version.version == 3
    assert running(device.machine) == whole(memory)


def test_a_step_that_ends_too_late_says_nothing_about_a_newer_document() -> None:
    """The step cannot be cancelled, so it fails after the newer document was accepted."""
    device = Device(Fault("never", 0, None))

    async def scenario() -> Memory:
        await device.install(envelope(OLD))
        memory, updater, _ = device.boot()
        memory.offer(envelope(NEW), VirtualClock().now())

        def late(_one: Instance, _path: str, _body: bytes | None) -> tuple[int, bytes]:
            if memory.floor.version == 2:
                memory.offer(envelope(NEWEST), VirtualClock().now())
            return 500, b""

        device.machine.answer = late
        await updater.run()
        return memory

    memory = run_virtual(scenario())

    assert memory.progress is not None
    assert (memory.progress.target.version, memory.progress.state) == (3, State.FETCH)
    assert memory.progress.code == ""


# ---- what never stops ---------------------------------------------------------------------------


def test_what_is_good_runs_on_while_a_bad_version_is_tried() -> None:
    device = Device(Fault("never", 0, None))
    device.machine.answer = lambda _one, _path, body: (200, b"[]" if body else b"{}")

    async def scenario() -> tuple[set[str], Memory]:
        memory = await device.install(envelope(OLD))
        old = whole(memory)
        memory.offer(envelope(NEW), VirtualClock().now())
        return old, await device.live()

    old, memory = run_virtual(scenario())

    assert not old & set(device.machine.stops)
    assert device.machine.stops != []
    assert device.says(memory)["message"].endswith(
        "answered 0 of 1 golden samples rightly, 100% are needed; "
        "first wrong: sample 1: $ is [], expected an object"
    )


def test_images_of_earlier_sets_are_removed() -> None:
    device = Device(Fault("never", 0, None))

    async def scenario() -> None:
        for document in (OLD, NEW, NEWEST):
            await device.install(envelope(document))
        await device.install(envelope(desired(4, {"digits": module(6)})))

    run_virtual(scenario())

    assert device.machine.images == {f"sha256:{n:064x}" for n in (5, 6)}


def test_a_module_that_ends_while_it_is_proved_is_named_with_its_last_words() -> None:
    device = Device(Fault("never", 0, None))

    async def scenario() -> Memory:
        memory = await device.install(envelope(OLD))

        def dies(one: Instance, _path: str, _body: bytes | None) -> tuple[int, bytes]:
            if one.state is InstanceState.RUNNING and one.image.endswith("3"):
                device.machine.exit(one.id, 3)
                raise DeviceError("connection reset", code=Code.PROBE_FAILED)
            return 200, b"{}"

        device.machine.answer = dies
        memory.offer(envelope(NEW), VirtualClock().now())
        return await device.live()

    says = device.says(run_virtual(scenario()))

    assert says["code"] == "module-start-failed"
    assert says["message"] == "module 'digits' ended with code 3: exit 3"
