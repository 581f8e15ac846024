"""Files go to a module, and every one is answered exactly once, whatever happens between."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from agent_world import PowerCutError, VirtualClock, run_virtual, until

from agent.core.ports import MAX_BODY_BYTES, OutboxRecord
from agent.feeder import MAX_FILE_BYTES, Feeder, Hooks
from protocol.errors import Code, DeviceError
from protocol.ids import ModuleName
from protocol.manifest import InputSource
from simulator.memory_outbox import MemoryOutbox

STEPS = (
    "before is_consumed",
    "after is_consumed",
    "before request",
    "after request",
    "before add",
    "after add",
    "before unlink",
    "after unlink",
    "before forget",
    "after forget",
)
Step = Callable[[str], None]


class Outbox(MemoryOutbox):
    """Tells before and after everything it does, and outlives the agent."""

    def __init__(self) -> None:
        super().__init__("e1")
        self.step: Step = lambda _name: None

    def add(
        self,
        module: str,
        output: str,
        at_ms: int,
        body: bytes,
        properties: dict[str, str],
        *,
        consumed: str | None = None,
    ) -> int:
        self.step("before add")
        seq = super().add(module, output, at_ms, body, properties, consumed=consumed)
        self.step("after add")
        return seq

    def is_consumed(self, name: str) -> bool:
        self.step("before is_consumed")
        found = super().is_consumed(name)
        self.step("after is_consumed")
        return found

    def forget_consumed(self, names: Sequence[str]) -> None:
        self.step("before forget")
        super().forget_consumed(names)
        self.step("after forget")


class World:
    """A folder, a module that answers with what `answer` says, and an outbox."""

    def __init__(self, root: Path) -> None:
        self.root, self.outbox, self.asked = root, Outbox(), list[bytes]()
        self.folder = root / "camera"
        self.folder.mkdir()
        self.endpoint: str | None = "http://127.0.0.1:5001"
        self.is_routed = True
        self.answer: Callable[[bytes], tuple[int, bytes]] = lambda body: (200, b"saw " + body)
        self.step: Step = lambda _name: None

    async def request(
        self, url: str, body: bytes | None, *, timeout_seconds: float
    ) -> tuple[int, bytes]:
        assert (url, timeout_seconds) == ("http://127.0.0.1:5001/score", 30.0)
        self.step("before request")
        self.asked.append(body or b"")
        answer = self.answer(body or b"")
        self.step("after request")
        return answer

    def put(self, name: str, content: bytes) -> None:
        (self.folder / name).write_bytes(content)

    def feeder(self) -> Feeder:
        world = self

        class TellingPath(type(Path())):  # type: ignore[misc]  # the class of a path is chosen at run time
            def unlink(self, missing_ok: bool = False) -> None:  # noqa: FBT001, FBT002 - pathlib's
                world.step("before unlink")
                super().unlink(missing_ok)
                world.step("after unlink")

        self.outbox.step = self.step
        return Feeder(
            ModuleName("digits"),
            InputSource(directory="camera"),
            TellingPath(self.root),
            (self, self.outbox, VirtualClock()),
            Hooks(
                lambda _module: self.endpoint,
                lambda _module, _output: self.is_routed,
                lambda: None,
            ),
        )

    def run(self, *, seconds: float = 5.0) -> None:
        """Feed until nothing is left, and a little longer; at most so many seconds."""

        async def scenario() -> None:
            task = asyncio.create_task(self.feeder().run())
            with suppress(TimeoutError):
                await until(lambda: task.done() or not self.files(), seconds=seconds)
            await asyncio.sleep(0.2)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled() and (error := task.exception()):
                raise error

        run_virtual(scenario())

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    @property
    def records(self) -> Sequence[OutboxRecord]:
        return self.outbox.waiting(after=0, limit=1000)

    @property
    def inputs(self) -> list[str]:
        return [record.properties["input"] for record in self.records]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_files_are_answered_in_order_and_removed(world: World) -> None:
    world.put("b.json", b"2")
    world.put("a.json", b"1")
    world.put(".c.json", b"not finished")

    world.run()

    assert [(r.module, r.output, r.body) for r in world.records] == [
        ("digits", "results", b"saw 1"),
        ("digits", "results", b"saw 2"),
    ]
    assert world.records[0].properties == {"input": "a", "latencyMs": "0.000"}
    assert world.files() == [".c.json"]


@pytest.mark.parametrize("occurrence", [1, 2])
@pytest.mark.parametrize("step", STEPS)
def test_a_kill_between_any_two_steps_answers_every_file_once(
    world: World, step: str, occurrence: int
) -> None:
    seen: list[str] = []

    def trap(name: str) -> None:
        seen.append(name)
        if name == step and seen.count(name) == occurrence:
            raise PowerCutError

    for name in "abc":
        world.put(name, name.encode())
    world.step = trap
    with suppress(PowerCutError):
        world.run()
    world.step = lambda _name: None
    world.run()

    assert world.inputs == ["a", "b", "c"]
    assert world.files() == []


def test_a_name_that_comes_again_is_a_new_file(world: World) -> None:
    for content in (b"1", b"2"):
        world.put("a", content)
        world.run()

    assert [record.body for record in world.records] == [b"saw 1", b"saw 2"]


def test_nothing_is_remembered_of_files_that_are_gone(world: World) -> None:
    for number in range(250):
        world.put(f"{number:03}", b"x")

    world.run()

    assert len(world.records) == 250
    assert world.outbox._consumed == set()


def test_a_file_that_is_too_large_is_told_and_not_read(world: World) -> None:
    world.put("a", b"")
    os.truncate(world.folder / "a", MAX_FILE_BYTES + 1)

    world.run()

    assert world.asked == []
    assert world.records[0].properties == {"input": "a", "error": "too-large: 16777217 bytes"}
    assert world.files() == []


def test_an_answer_that_no_message_holds_is_told_instead(world: World) -> None:
    world.answer = lambda _body: (200, b"x" * (MAX_BODY_BYTES + 1))
    world.put("a", b"1")

    world.run()

    assert world.records[0].body == b""
    assert world.records[0].properties["error"] == "too-large: an answer of 524289 bytes"


def test_a_file_the_module_fails_on_does_not_block_the_next(world: World) -> None:
    world.answer = lambda body: (500, b"Traceback") if body == b"poison" else (200, b"fine")
    world.put("a", b"poison")
    world.put("b", b"good")

    world.run()

    assert world.asked == [b"poison"] * 3 + [b"good"]
    assert [(r.body, r.properties.get("error")) for r in world.records] == [
        (b"Traceback", "status 500"),
        (b"fine", None),
    ]


def test_a_file_the_module_refuses_is_told_at_once(world: World) -> None:
    world.answer = lambda _body: (422, b"no digit")
    world.put("a", b"1")

    world.run()

    assert (len(world.asked), world.records[0].properties["error"]) == (1, "status 422")


def test_a_busy_module_is_asked_again_and_again(world: World) -> None:
    world.answer = lambda _body: (503, b"") if len(world.asked) < 8 else (200, b"done")
    world.put("a", b"1")

    world.run(seconds=60)

    assert (len(world.asked), [r.body for r in world.records]) == (8, [b"done"])


def test_files_wait_for_a_module_that_does_not_answer(world: World) -> None:
    def away(_body: bytes) -> tuple[int, bytes]:
        raise DeviceError("refused", code=Code.PROBE_FAILED)

    world.answer = away
    world.put("a", b"1")
    world.run(seconds=600)

    assert (len(world.asked) > 100, world.files(), world.inputs) == (True, ["a"], [])


def test_a_file_the_module_hangs_on_does_not_block_the_next(world: World) -> None:
    respond = world.request

    async def slow(url: str, body: bytes | None, *, timeout_seconds: float) -> tuple[int, bytes]:
        if body == b"poison":
            world.asked.append(body)
            await asyncio.sleep(timeout_seconds)
            raise DeviceError("no answer within 30 seconds", code=Code.PROBE_FAILED)
        return await respond(url, body, timeout_seconds=timeout_seconds)

    world.request = slow  # type: ignore[method-assign]  # this module is another one
    world.put("a", b"poison")
    world.put("b", b"good")

    world.run(seconds=200)

    assert world.inputs == ["a", "b"]
    assert world.records[0].properties["error"] == "probe-failed: no answer within 30 seconds"
    assert world.asked == [b"poison"] * 3 + [b"good"]


def test_files_wait_for_a_module_that_does_not_run(world: World) -> None:
    world.endpoint = None
    world.put("a", b"1")
    world.run()
    before = (world.files(), list(world.asked))
    world.endpoint = "http://127.0.0.1:5001"
    world.run()

    assert (before, world.inputs) == ((["a"], []), ["a"])


def test_what_no_route_takes_is_answered_and_not_kept(world: World) -> None:
    world.is_routed = False
    world.put("a", b"1")

    world.run()

    assert (world.asked, world.inputs, world.files()) == ([b"1"], [], [])


def test_what_is_no_file_is_nobodys_input(world: World) -> None:
    (world.folder / "a-folder").mkdir()
    os.mkfifo(world.folder / "a-pipe")
    (world.folder / "a-loop").symlink_to("a-loop")
    world.put("b", b"1")

    world.run()

    assert world.inputs == ["b"]
    assert world.files() == ["a-folder", "a-loop", "a-pipe"]


def test_a_name_in_another_encoding_is_no_obstacle(world: World) -> None:
    Path(os.fsdecode(os.fsencode(world.folder) + b"/caf\xe9.json")).write_bytes(b"1")

    world.run()

    assert world.inputs == ["caf\\xe9"]
    assert world.files() == []


def test_a_file_that_vanishes_is_no_obstacle(world: World) -> None:
    def vanish(name: str) -> None:
        if name == "before is_consumed":
            (world.folder / "b").unlink(missing_ok=True)

    world.step = vanish
    for name in "abc":
        world.put(name, b"1")

    world.run()

    assert world.inputs == ["a", "c"]


def test_a_full_disk_consumes_nothing(world: World) -> None:
    def full(name: str) -> None:
        if name == "before add":
            raise DeviceError("no space is left", code=Code.DISK_FULL)

    world.step = full
    world.put("a", b"1")
    with pytest.raises(DeviceError):
        world.run()

    assert (world.files(), world.inputs) == (["a"], [])


def test_a_file_that_is_being_written_is_left_alone(world: World) -> None:
    world.put("b.json", b"2")
    with (world.folder / "a.json").open("wb") as unfinished:
        unfinished.write(b"1")
        unfinished.flush()
        world.run(seconds=1)
        assert (world.inputs, world.files()) == (["b"], ["a.json"])
        unfinished.write(b"11")

    world.run()

    assert [record.body for record in world.records] == [b"saw 2", b"saw 111"]
