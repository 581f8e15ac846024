"""Rollouts as a state machine: whatever devices do, waves hold, failures stop them, they end."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hub_lab import code_of
from hypothesis import given
from hypothesis import strategies as st

from hub.core.deployment import Member, MemberState, RolloutPolicy, Wave
from hub.core.rollout import Abort, Dispatch, Done, Wait, decide, parse_waves, silent
from protocol.ids import DeviceId

AT = datetime(2030, 1, 1, tzinfo=UTC)
S = MemberState


def member(name: str, state: MemberState = S.WAITING, wave: int | None = None) -> Member:
    if wave is None and state is not S.WAITING:
        wave = 0
    return Member("d", DeviceId(name), state, AT, wave, code="probe-failed", message="no answer")


def after(seconds: float) -> datetime:
    return AT + timedelta(seconds=seconds)


def test_nobody_is_done_at_once() -> None:
    assert decide(RolloutPolicy(), [], AT) == Done()


def test_without_waves_everyone_goes_first_in_order_of_id() -> None:
    decision = decide(RolloutPolicy(), [member("b"), member("a")], AT)

    assert decision == Dispatch(0, (DeviceId("a"), DeviceId("b")))


@pytest.mark.parametrize(
    ("wave", "total", "taken"),
    [
        (Wave(count=1), 5, 1),
        (Wave(count=9), 5, 5),
        (Wave(share=0.5), 5, 2),
        (Wave(share=0.01), 5, 1),
        (Wave(share=1.0), 5, 5),
        (Wave(), 5, 1),
    ],
)
def test_a_wave_takes_as_many_as_it_says_and_never_nobody(
    wave: Wave, total: int, taken: int
) -> None:
    members = [member(f"d{number}") for number in range(total)]

    decision = decide(RolloutPolicy((wave,)), members, AT)

    assert isinstance(decision, Dispatch)
    assert len(decision.devices) == taken


def test_a_wave_waits_for_its_slowest_and_says_until_when() -> None:
    members = [member("a", S.DISPATCHED), member("b", S.SUCCEEDED), member("c")]

    decision = decide(RolloutPolicy((Wave(2),), silent_seconds=60), members, AT)

    assert decision == Wait("1 devices have not answered yet", after(60))


def test_a_wave_soaks_before_the_next_begins() -> None:
    policy = RolloutPolicy((Wave(1),), soak_seconds=60)
    members = [member("a", S.SUCCEEDED), member("b")]

    assert decide(policy, members, after(59)) == Wait("the last wave is soaking", after(60))
    assert decide(policy, members, after(60)) == Dispatch(1, (DeviceId("b"),))


def test_the_last_wave_does_not_soak() -> None:
    assert decide(RolloutPolicy(soak_seconds=60), [member("a", S.SUCCEEDED)], AT) == Done()


def test_one_failure_aborts_by_default_while_others_are_on_their_way() -> None:
    members = [member("a", S.DISPATCHED), member("b", S.FAILED), member("c")]

    decision = decide(RolloutPolicy((Wave(2),)), members, AT)

    assert isinstance(decision, Abort)
    assert decision.reason == ("wave 1: 1 of 2 devices failed, first 'b': probe-failed: no answer")


@pytest.mark.parametrize(("failed", "aborts"), [(1, False), (2, True)])
def test_it_aborts_as_soon_as_the_threshold_is_out_of_reach(failed: int, *, aborts: bool) -> None:
    members = [member(f"f{n}", S.FAILED) for n in range(failed)]
    members += [member(f"d{n}", S.DISPATCHED) for n in range(10 - failed)]

    decision = decide(RolloutPolicy(min_success=0.9), members, AT)

    assert isinstance(decision, Abort) is aborts


def test_without_a_threshold_everyone_may_fail() -> None:
    policy = RolloutPolicy(min_success=0)

    assert decide(policy, [member("a", S.FAILED)], AT) == Done()


def test_a_newcomer_comes_in_the_next_wave() -> None:
    members = [member("a", S.SUCCEEDED), member("new")]

    assert decide(RolloutPolicy(), members, AT) == Dispatch(1, (DeviceId("new"),))


def test_only_the_dispatched_can_be_silent() -> None:
    policy = RolloutPolicy(silent_seconds=60)
    members = [member(state.value, state) for state in S]

    assert silent(policy, members, after(59)) == []
    assert [m.state for m in silent(policy, members, after(60))] == [S.DISPATCHED]


def test_waves_are_read_as_people_write_them() -> None:
    assert parse_waves("1, 10%,,100%") == (Wave(1), Wave(share=0.1), Wave(share=1.0))
    assert parse_waves("") == ()


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "101%", "0%", "%", "ten", "1 2", "\u0663"])
def test_other_waves_are_refused(text: str) -> None:
    assert code_of(lambda: parse_waves(text)) == "request-invalid"


# ---- whatever happens ----------------------------------------------------------------------------

waves = st.lists(
    st.one_of(
        st.builds(Wave, count=st.integers(1, 4)),
        st.builds(Wave, share=st.floats(0.01, 1.0)),
    ),
    max_size=3,
)
policies = st.builds(
    RolloutPolicy,
    waves=waves.map(tuple),
    soak_seconds=st.sampled_from([0.0, 30.0]),
    min_success=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    silent_seconds=st.sampled_from([60.0, 120.0]),
)
# What each device does in order of dispatch: succeed, fail, say nothing.
fates = st.lists(st.sampled_from([S.SUCCEEDED, S.SUCCEEDED, S.FAILED, None]), max_size=12)


def unreachable(policy: RolloutPolicy, members: list[Member]) -> bool:
    by_wave: dict[int, list[Member]] = {}
    for each in members:
        if each.wave is not None:
            by_wave.setdefault(each.wave, []).append(each)
    return any(
        sum(m.state is not S.FAILED for m in wave) < policy.min_success * len(wave) - 1e-9
        for wave in by_wave.values()
    )


@given(policies, fates, st.integers(0, 3), st.data())
def test_a_rollout_keeps_its_promises(  # noqa: C901 - a story, told in one go
    policy: RolloutPolicy, plan: list[MemberState | None], newcomers: int, data: st.DataObject
) -> None:
    members = {f"d{n:02}": member(f"d{n:02}") for n in range(len(plan))}
    fate = dict(zip(members, plan, strict=True))
    for number in range(newcomers):
        fate[f"n{number}"] = data.draw(st.sampled_from([S.SUCCEEDED, S.FAILED]))
    now, dispatched, last_wave = AT, set[str](), -1

    for _ in range(200):
        decision = decide(policy, list(members.values()), now)
        assert isinstance(decision, Abort) is unreachable(policy, list(members.values()))
        if isinstance(decision, Abort | Done):
            break
        if isinstance(decision, Dispatch):
            assert decision.wave == last_wave + 1
            assert decision.devices
            assert not dispatched.intersection(decision.devices)
            assert all(m.state is not S.DISPATCHED for m in members.values())
            ended = [m.since for m in members.values() if m.state is S.SUCCEEDED]
            if policy.soak_seconds and ended:
                assert now >= max(ended) + timedelta(seconds=policy.soak_seconds)
            last_wave = decision.wave
            dispatched.update(decision.devices)
            for name in decision.devices:
                members[name] = replace(
                    members[name], state=S.DISPATCHED, wave=last_wave, since=now
                )
            continue
        now += timedelta(seconds=10)
        for late in silent(policy, list(members.values()), now):
            assert now - late.since >= timedelta(seconds=policy.silent_seconds)
            members[late.device_id] = replace(late, state=S.FAILED, since=now)
        pending = [m for m in members.values() if m.state is S.DISPATCHED and fate[m.device_id]]
        if pending:
            chosen = data.draw(st.sampled_from(pending))
            end = fate[chosen.device_id]
            assert end is not None
            members[chosen.device_id] = replace(chosen, state=end, since=now)
        coming = sorted(set(fate) - set(members))
        if coming:
            members[coming[0]] = replace(member(coming[0]), since=now)
    else:
        raise AssertionError("the rollout does not end")

    if isinstance(decision, Done):
        assert all(m.state in (S.SUCCEEDED, S.FAILED) for m in members.values())
        assert dispatched == set(members)
