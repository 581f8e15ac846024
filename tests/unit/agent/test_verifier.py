"""A module proves itself before it counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from agent_world import VirtualClock, ref, run_virtual, spec

from agent.core.plan import Instance, ModuleSpec
from agent.verifier import Verifier
from protocol.errors import Code, DeviceError, FleetError
from protocol.manifest import GoldenSample, GoldenSamples, Probe
from protocol.messages import Credential
from simulator.fakes import FakeMachine, FakeProber, FakeRuntime

Answer = Callable[[Instance, str, bytes | None], tuple[int, bytes]]


def golden(*expected: Any, least: float = 1.0, path: str = "/score") -> GoldenSamples:
    samples = [GoldenSample(input=number, expected=one) for number, one in enumerate(expected)]
    return GoldenSamples(samples=samples, path=path, min_pass=least)


def answering(*answers: bytes, status: int = 200) -> Answer:
    """Answer the n-th sample with the n-th of these, and every GET with 200."""

    def answer(_one: Instance, _path: str, body: bytes | None) -> tuple[int, bytes]:
        return (200, b"") if body is None else (status, answers[int(body)])

    return answer


async def proved(one: ModuleSpec, machine: FakeMachine, *, started: bool = True) -> float:
    """Return after how many seconds the module was proved."""
    clock = VirtualClock()
    runtime = FakeRuntime(clock, machine)
    if started:
        await runtime.pull(ref(1), Credential("anonymous"))
        await runtime.start(one)
    await Verifier(runtime, FakeProber(machine), clock).verify(one)
    return clock.monotonic()


def failure(one: ModuleSpec, machine: FakeMachine, *, started: bool = True) -> FleetError:
    with pytest.raises(FleetError) as caught:
        run_virtual(proved(one, machine, started=started))
    return caught.value


def test_a_module_that_promises_nothing_need_only_run() -> None:
    assert run_virtual(proved(spec(), FakeMachine())) == 0


def test_the_ready_probe_is_asked_until_it_is_answered_with_200() -> None:
    asked: list[str] = []

    def starting(_one: Instance, path: str, _body: bytes | None) -> tuple[int, bytes]:
        asked.append(path)
        if len(asked) < 10:
            raise DeviceError("refused", code=Code.PROBE_FAILED)
        return (503 if len(asked) < 20 else 200), b""

    one = spec(ready_probe=Probe(path="/ready"))

    assert run_virtual(proved(one, FakeMachine(answer=starting))) == pytest.approx(1.9)
    assert set(asked) == {"/ready"}


def test_a_probe_that_is_never_answered_ends_after_its_time() -> None:
    one = spec(ready_probe=Probe(path="/ready", timeout_seconds=3))

    error = failure(one, FakeMachine(answer=lambda _one, _path, _body: (503, b"")))

    assert (error.code, str(error)) == (
        Code.PROBE_FAILED,
        "module 'digits' was not ready after 3 s",
    )
    assert error.hint == "read its log: `rimward-agent logs digits`"


def test_a_tcp_probe_needs_an_endpoint_only() -> None:
    machine = FakeMachine(answer=lambda _one, _path, _body: (500, b""))

    assert run_virtual(proved(spec(ready_probe=Probe(kind="tcp")), machine)) == 0


def test_an_instance_that_never_appears_is_not_ready() -> None:
    assert failure(spec(), FakeMachine(), started=False).code is Code.PROBE_FAILED


def test_a_path_cannot_leave_the_module() -> None:
    asked: list[str] = []

    def note(_one: Instance, path: str, _body: bytes | None) -> tuple[int, bytes]:
        asked.append(path)
        return 200, b""

    one = spec(ready_probe=Probe(path="http://192.0.2.1/x"))
    run_virtual(proved(one, FakeMachine(answer=note)))

    assert asked == ["/http://192.0.2.1/x"]


def test_golden_samples_wait_until_the_server_is_there() -> None:
    tries: list[bytes | None] = []

    def slow(_one: Instance, _path: str, body: bytes | None) -> tuple[int, bytes]:
        tries.append(body)
        if len(tries) < 5:
            raise DeviceError("refused", code=Code.PROBE_FAILED)
        return (405, b"") if body is None else (200, b"7")

    assert run_virtual(proved(spec(golden=golden(7)), FakeMachine(answer=slow))) > 0
    assert tries == [None, None, None, None, None, b"0"]


def test_right_answers_prove_it() -> None:
    one = spec(golden=golden({"digit": 7}, [1.0005]))

    assert (
        run_virtual(proved(one, FakeMachine(answer=answering(b'{"digit":7,"p":1}', b"[1]")))) == 0
    )


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (answering(b'{"digit":3}'), "$.digit is 3, expected 7"),
        (answering(b"{}"), "$.digit is missing"),
        (answering(b"[7]"), "$ is [7], expected an object"),
        (answering(b'{"digit":7}', status=500), "status 500"),
        (answering(b"<html>", status=404), "status 404"),
        (answering(b"<html>"), "the answer is not JSON: JSON is malformed"),
        (answering(b"\xff\xfe"), "the answer is not JSON:"),
        (answering(b"[" * 100_000), "the answer is not JSON:"),
        (answering(b"NaN"), "the answer is not JSON:"),
    ],
)
def test_a_wrong_answer_is_named(answer: Answer, says: str) -> None:
    error = failure(spec(golden=golden({"digit": 7})), FakeMachine(answer=answer))

    assert error.code is Code.GOLDEN_MISMATCH
    assert str(error).startswith(
        "module 'digits' answered 0 of 1 golden samples rightly, 100% are needed; "
        f"first wrong: sample 1: {says}"
    )


def test_no_answer_to_a_sample_is_a_wrong_one() -> None:
    def silent(_one: Instance, _path: str, body: bytes | None) -> tuple[int, bytes]:
        if body is not None:
            raise DeviceError("no answer within 10 seconds", code=Code.PROBE_FAILED)
        return 200, b""

    error = failure(spec(golden=golden(1)), FakeMachine(answer=silent))

    assert str(error).endswith("first wrong: sample 1: no answer within 10 seconds")


def test_a_module_that_does_not_answer_is_not_asked_a_thousand_times() -> None:
    asked: list[bytes] = []

    def silent(_one: Instance, _path: str, body: bytes | None) -> tuple[int, bytes]:
        if body is None:
            return 200, b""
        asked.append(body)
        raise DeviceError("no answer within 10 seconds", code=Code.PROBE_FAILED)

    error = failure(spec(golden=golden(*range(1000), least=0.998)), FakeMachine(answer=silent))

    assert len(asked) == 3
    assert "answered 0 of 1000 golden samples rightly" in str(error)


def test_as_many_samples_may_be_wrong_as_the_manifest_allows() -> None:
    answers = answering(b"0", b"1", b"9", b"3")
    samples = (0, 1, 2, 3)

    run_virtual(proved(spec(golden=golden(*samples, least=0.75)), FakeMachine(answer=answers)))
    error = failure(spec(golden=golden(*samples, least=0.76)), FakeMachine(answer=answers))

    assert str(error).endswith(
        "answered 3 of 4 golden samples rightly, 76% are needed; "
        "first wrong: sample 3: $ is 9, expected 2"
    )


def test_a_module_that_ends_is_named_with_its_last_words() -> None:
    machine = FakeMachine()

    def dying(one: Instance, _path: str, _body: bytes | None) -> tuple[int, bytes]:
        machine.exit(one.id, 3)
        machine.lines[one.id] += ["Traceback", "bad\x00 weights", "x" * 400]
        raise DeviceError("connection reset", code=Code.PROBE_FAILED)

    machine.answer = dying
    error = failure(spec(ready_probe=Probe()), machine)

    assert error.code is Code.MODULE_START_FAILED
    assert str(error).startswith("module 'digits' ended with code 3: ")
    assert str(error).endswith("x" * 300)
    assert str(error).isprintable()


def test_a_module_without_an_endpoint_is_not_ready_for_its_probe() -> None:
    async def scenario() -> None:
        clock, machine = VirtualClock(), FakeMachine()
        runtime, one = FakeRuntime(clock, machine), spec(ready_probe=Probe(timeout_seconds=2))
        await runtime.pull(ref(1), Credential("anonymous"))
        await runtime.start(one)
        machine.instances[one.instance_id] = replace(
            machine.instances[one.instance_id], endpoint=None
        )
        await Verifier(runtime, FakeProber(machine), clock).verify(one)

    with pytest.raises(FleetError, match="not ready after 2 s"):
        run_virtual(scenario())
