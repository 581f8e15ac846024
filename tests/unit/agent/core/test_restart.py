"""When a module that ended may start again."""

from __future__ import annotations

from datetime import timedelta

import pytest
from agent_world import START, spec
from hypothesis import given
from hypothesis import strategies as st

from agent.core.plan import Instance, InstanceState, ModuleSpec
from agent.core.restart import CEILING_SECONDS, RESET_AFTER, Restarts


def ended(of: ModuleSpec, code: int | None = 1) -> Instance:
    return Instance(
        of.instance_id, of.name, of.fingerprint, InstanceState.EXITED, "sha256:0", exit_code=code
    )


def seconds_until_restart(restarts: Restarts, of: ModuleSpec) -> float:
    for seconds in range(1000):
        if restarts.may_start(of, ended(of), START + timedelta(seconds=seconds)):
            return seconds
    raise AssertionError("it never starts again")


def test_what_never_ran_starts_at_once() -> None:
    assert Restarts().may_start(spec(), None, START)


def test_an_end_that_was_not_noted_waits_for_the_note() -> None:
    assert not Restarts().may_start(spec(), ended(spec()), START)


def test_the_delay_doubles_up_to_its_ceiling() -> None:
    restarts, one, delays = Restarts(10.0), spec(), list[float]()
    for _ in range(7):
        restarts.saw_end(one.instance_id, START)
        delays.append(seconds_until_restart(restarts, one))
        restarts.started(one.instance_id)

    assert delays == [10, 20, 40, 80, 160, 300, 300]
    assert restarts.count(one.instance_id) == 7


def test_a_second_look_at_the_same_end_does_not_begin_the_delay_again() -> None:
    restarts, one = Restarts(10.0), spec()
    restarts.saw_end(one.instance_id, START)
    restarts.saw_end(one.instance_id, START + timedelta(seconds=9))

    assert restarts.may_start(one, ended(one), START + timedelta(seconds=10))


def test_a_start_that_failed_rests_as_well() -> None:
    restarts, one = Restarts(10.0), spec()
    restarts.saw_end(one.instance_id, START)

    assert not restarts.may_start(one, None, START + timedelta(seconds=9))
    assert restarts.may_start(one, None, START + timedelta(seconds=10))


def test_a_clock_that_went_back_does_not_keep_a_module_down() -> None:
    restarts, one = Restarts(), spec()
    restarts.saw_end(one.instance_id, START)

    assert restarts.may_start(one, ended(one), START - timedelta(days=3))


@pytest.mark.parametrize(
    ("policy", "code", "starts"),
    [
        ("always", 0, True),
        ("always", 1, True),
        ("on-failure", 0, False),
        ("on-failure", 1, True),
        ("on-failure", None, True),
        ("on-unhealthy", 0, False),
        ("on-unhealthy", 137, True),
        ("never", 1, False),
        ("never", 0, False),
    ],
)
def test_the_policy_decides(policy: str, code: int | None, *, starts: bool) -> None:
    restarts, one = Restarts(), spec(restart_policy=policy)
    restarts.saw_end(one.instance_id, START)

    assert restarts.may_start(one, ended(one, code), START + timedelta(days=1)) is starts


def test_a_first_start_is_no_restart() -> None:
    restarts = Restarts()
    restarts.started("digits.0")

    assert restarts.count("digits.0") == 0


def test_a_long_run_forgets_what_was_before() -> None:
    restarts, one = Restarts(), spec()
    restarts.saw_end(one.instance_id, START)
    restarts.started(one.instance_id)
    restarts.saw_running(one.instance_id, RESET_AFTER - timedelta(seconds=1))
    before = restarts.count(one.instance_id)
    restarts.saw_running(one.instance_id, RESET_AFTER)

    assert (before, restarts.count(one.instance_id)) == (1, 0)


def test_what_is_no_longer_wanted_is_forgotten() -> None:
    restarts = Restarts()
    for name in ("a.1", "b.1"):
        restarts.saw_end(name, START)
        restarts.started(name)
    restarts.keep_only({"b.1"})

    assert (restarts.count("a.1"), restarts.count("b.1")) == (0, 1)


@given(st.integers(0, 5000))
def test_no_delay_is_beyond_the_ceiling(restarted: int) -> None:
    restarts = Restarts()
    for _ in range(restarted % 40):
        restarts.saw_end("a.1", START)
        restarts.started("a.1")

    assert 10.0 <= restarts.delay_seconds("a.1") <= CEILING_SECONDS
