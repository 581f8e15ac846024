"""Desired and observed to actions: from any state to any other, and then nothing."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest
from agent_world import START, OpenHandedHub, running, spec
from hypothesis import given
from hypothesis import strategies as st

from agent.core.plan import InstanceState, ModuleSpec, Observed, Plan, Pull, Start, Stop
from agent.core.planner import beside, plan
from agent.core.restart import Restarts
from agent.executor import Executor
from protocol.errors import Code, FleetError, UnavailableError
from simulator.fakes import FakeMachine, FakeRuntime, ManualClock

specs = st.builds(
    spec,
    st.sampled_from(["a", "b", "c"]),
    st.integers(1, 3),
    running=st.booleans(),
    startup_order=st.integers(0, 2),
    restart_policy=st.sampled_from(["always", "on-failure", "never"]),
    env=st.dictionaries(st.just("K"), st.sampled_from("12"), max_size=1),
)
sets = st.lists(specs, max_size=4, unique_by=lambda one: one.name)


async def settle(wanted: list[ModuleSpec], runtime: FakeRuntime) -> list[Plan]:
    """Plan and act until nothing is left to do; return what was planned."""
    executor, restarts = Executor(runtime, OpenHandedHub(), lambda _: None), Restarts()
    plans: list[Plan] = []
    for _ in range(10):
        observed = await runtime.observe()
        for instance in observed.instances:
            if instance.state is InstanceState.EXITED:
                restarts.saw_end(instance.id, START)
        # a day later: every delay is over
        steps = plan(wanted, observed, restarts, ManualClock().now().replace(day=2))
        if not steps:
            return plans
        plans.append(steps)
        for step in steps:
            await executor.execute(step)
            if isinstance(step, Start):
                restarts.started(step.spec.instance_id)
    raise AssertionError(f"it never settles: {plans}")


def due(wanted: list[ModuleSpec], machine: FakeMachine) -> set[str]:
    """Return what has to run: everything wanted but what ended and shall not start again."""
    rests = {
        one.instance_id
        for one in wanted
        if one.instance_id in machine.instances
        and machine.instances[one.instance_id].state is InstanceState.EXITED
        and (one.restart_policy == "never" or machine.instances[one.instance_id].exit_code == 0)
        and one.restart_policy != "always"
    }
    return {one.instance_id for one in wanted if one.running} - rests


@given(before=sets, wanted=sets, data=st.data())
def test_any_state_leads_to_any_other_and_then_nothing_is_done(
    before: list[ModuleSpec], wanted: list[ModuleSpec], data: st.DataObject
) -> None:
    machine = FakeMachine()
    runtime = FakeRuntime(ManualClock(), machine)
    asyncio.run(settle(before, runtime))
    for name in sorted(machine.instances):
        if data.draw(st.booleans(), label=f"{name} ends"):
            machine.exit(name, data.draw(st.sampled_from([0, 1, None])))
    goal = due(wanted, machine)

    plans = asyncio.run(settle(wanted, runtime))

    assert running(machine) == goal
    assert len(plans) <= 1
    assert set(machine.instances) <= {one.instance_id for one in wanted if one.running}


@given(before=sets, wanted=sets)
def test_everything_is_pulled_before_it_starts_and_started_before_anything_stops(
    before: list[ModuleSpec], wanted: list[ModuleSpec]
) -> None:
    runtime = FakeRuntime(ManualClock())
    asyncio.run(settle(before, runtime))
    steps = plan(wanted, asyncio.run(runtime.observe()), Restarts(), START)

    ranks = [(Pull, Start, Stop).index(type(step)) for step in steps]
    orders = [step.spec.startup_order for step in steps if isinstance(step, Start)]
    assert ranks == sorted(ranks)
    assert orders == sorted(orders)
    assert len({str(s.image) for s in steps if isinstance(s, Pull)}) == ranks.count(0)


def test_the_same_inputs_give_the_same_plan() -> None:
    wanted = [spec("b", 2), spec("a", 1), spec("c", 2, startup_order=1)]

    steps = plan(wanted, Observed(frozenset(), ()), Restarts(), START)

    assert steps == plan(list(reversed(wanted)), Observed(frozenset(), ()), Restarts(), START)
    assert [str(type(s).__name__) for s in steps] == ["Pull", "Pull", "Start", "Start", "Start"]


def test_a_failed_pull_touches_nothing_that_runs() -> None:
    machine = FakeMachine()
    runtime = FakeRuntime(ManualClock(), machine)
    asyncio.run(settle([spec("a", 1)], runtime))
    before = dict(machine.instances)
    machine.pull_failures = deque([UnavailableError("no", code=Code.IMAGE_UNAVAILABLE)])

    with pytest.raises(FleetError):
        asyncio.run(settle([spec("a", 2)], runtime))

    assert (machine.instances, machine.stops) == (before, [])


def test_a_module_that_ended_rests_before_it_starts_again() -> None:
    machine = FakeMachine()
    runtime = FakeRuntime(ManualClock(), machine)
    asyncio.run(settle([spec()], runtime))
    machine.exit(spec().instance_id, 1)
    restarts = Restarts()
    restarts.saw_end(spec().instance_id, START)

    assert plan([spec()], asyncio.run(runtime.observe()), restarts, START) == ()


# ---- old and new side by side -------------------------------------------------------------------


def ids(found: list[ModuleSpec]) -> set[tuple[str, str]]:
    return {(one.name, str(one.image.digest)[-1]) for one in found}


def by_name(*all_of_them: ModuleSpec) -> dict[Any, ModuleSpec]:
    return {one.name: one for one in all_of_them}


def test_old_and_new_run_side_by_side() -> None:
    assert ids(beside(by_name(spec("a", 1)), by_name(spec("a", 2)))) == {("a", "1"), ("a", "2")}


def test_what_was_removed_runs_on_until_the_update_is_proved() -> None:
    assert ids(beside(by_name(spec("a", 1), spec("b", 1)), by_name(spec("a", 1)))) == {
        ("a", "1"),
        ("b", "1"),
    }


PORT = {"HostConfig": {"PortBindings": {"5001/tcp": [{"HostPort": "80"}, {}], "1/tcp": None}}}
HOST = {"HostConfig": {"NetworkMode": "host"}}
CAMERA = {"HostConfig": {"Devices": [{"PathOnHost": "/dev/video0"}]}}


@pytest.mark.parametrize("options", [PORT, HOST, CAMERA])
@pytest.mark.parametrize("name", ["a", "renamed"])
def test_what_cannot_run_twice_makes_room(name: str, options: dict[str, Any]) -> None:
    old, new = spec("a", 1, create_options=options), spec(name, 2, create_options=options)

    assert ids(beside(by_name(old), by_name(new))) == {(name, "2")}


def test_unchanged_modules_keep_what_they_hold() -> None:
    held = spec("a", 1, create_options=PORT)

    assert beside(by_name(held), by_name(held, spec("b", 2))) == [held, spec("b", 2)]


def test_different_resources_do_not_collide() -> None:
    old, new = spec("a", 1, create_options=HOST), spec("a", 2, create_options=CAMERA)

    assert ids(beside(by_name(old), by_name(new))) == {("a", "1"), ("a", "2")}


def test_what_shall_only_stop_runs_until_the_update_is_proved() -> None:
    old, new = spec("a", 1), spec("a", 1, running=False)

    assert [one.running for one in beside(by_name(old), by_name(new))] == [True]
    assert [one.running for one in beside(by_name(new), by_name(old))] == [True]


def test_a_stopped_newcomer_takes_nobodys_place() -> None:
    old = spec("a", 1, create_options=PORT)
    new = spec("a", 2, create_options=PORT, running=False)

    assert ids(beside(by_name(old), by_name(new))) == {("a", "1"), ("a", "2")}
