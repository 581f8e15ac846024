"""The update's table, and how often a device may die in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.desired import Version
from agent.core.update import (
    MAX_ENTRIES,
    NEXT,
    TERMINAL,
    Outcome,
    Progress,
    State,
    advance,
    begin,
    resume,
)

UNDER_WAY = [state for state in State if state not in TERMINAL]


def at(state: State) -> Progress:
    return Progress(1, 7, state)


def test_every_state_handles_every_outcome() -> None:
    assert set(NEXT) == {(state, outcome) for state in UNDER_WAY for outcome in Outcome}


def test_nothing_leaves_a_state_that_ends_the_update() -> None:
    assert all(resume(at(state)) == at(state) for state in TERMINAL)


@pytest.mark.parametrize("state", UNDER_WAY)
def test_a_retry_changes_nothing(state: State) -> None:
    progress = at(state)

    assert advance(progress, Outcome.RETRY, code="disk-full", message="full") is progress


@pytest.mark.parametrize("state", [s for s in UNDER_WAY if s is not State.ROLLBACK])
def test_an_error_goes_back_and_says_why(state: State) -> None:
    moved = advance(at(state), Outcome.ERROR, code="probe-failed", message="no answer")

    assert (moved.state, moved.code, moved.message) == (
        State.ROLLBACK,
        "probe-failed",
        "no answer",
    )


def test_the_way_forward_ends_with_success() -> None:
    progress, states = begin(Version(1, 7)), list[State]()
    while progress.state not in TERMINAL:
        states.append(progress.state)
        progress = advance(progress, Outcome.OK)

    assert states == [State.FETCH, State.INSTALL, State.VERIFY, State.COMMIT]
    assert (progress.state, progress.code, progress.target) == (State.DONE, "", Version(1, 7))


def test_the_first_reason_is_the_one_that_is_kept() -> None:
    back = advance(at(State.VERIFY), Outcome.ERROR, code="golden-mismatch", message="wrong")
    again = advance(replace(back, state=State.COMMIT), Outcome.ERROR, code="busy", message="other")

    assert (again.code, again.message) == ("golden-mismatch", "wrong")
    assert advance(back, Outcome.OK).code == "golden-mismatch"


def test_a_long_message_is_cut() -> None:
    assert len(advance(at(State.FETCH), Outcome.ERROR, code="x", message="m" * 9999).message) == 500


@pytest.mark.parametrize("state", [s for s in UNDER_WAY if s is not State.ROLLBACK])
def test_a_device_that_always_dies_in_a_step_goes_back(state: State) -> None:
    progress = at(state)
    for _ in range(MAX_ENTRIES):
        progress = resume(progress)
        if progress.state is State.ROLLBACK:
            break

    assert progress.state is State.ROLLBACK
    assert (progress.code, f"{state.value!r}" in progress.message) == ("internal", True)


def test_a_device_that_also_dies_going_back_has_failed() -> None:
    progress = advance(at(State.VERIFY), Outcome.ERROR, code="probe-failed", message="no answer")
    for _ in range(MAX_ENTRIES):
        progress = resume(progress)

    assert (progress.state, progress.code) == (State.FAILED, "probe-failed")


@given(st.lists(st.sampled_from([None, *Outcome]), max_size=80))
def test_no_update_is_written_more_often_than_allowed(events: list[Outcome | None]) -> None:
    """Whatever happens, in any order: steps that end, and restarts of the agent (None)."""
    progress, writes = begin(Version(1, 1)), 1
    for event in events:
        if progress.state in TERMINAL:
            break
        if event is Outcome.ERROR and progress.state is State.ROLLBACK:
            event = Outcome.RETRY  # noqa: PLW2901 - the updater never calls it an error there
        moved = resume(progress) if event is None else advance(progress, event)
        writes += moved is not progress
        progress = moved

    assert writes == progress.entries <= MAX_ENTRIES


def test_restarts_alone_end_every_update() -> None:
    progress, starts = begin(Version(1, 1)), 0
    while progress.state not in TERMINAL:
        progress, starts = resume(progress), starts + 1

    assert (progress.state, starts) == (State.FAILED, MAX_ENTRIES - 1)
