"""The update, as a table that survives power loss. Pure.

A state is saved before it is entered and may be entered again after a crash, so the work of each
must be repeatable. Entries are counted: a device that dies inside a step for ever gives up.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec
from msgspec.structs import replace

from agent.core.desired import Version


class State(StrEnum):
    """Where an update stands."""

    FETCH = "fetch"
    INSTALL = "install"
    VERIFY = "verify"
    COMMIT = "commit"
    ROLLBACK = "rollback"
    DONE = "done"
    FAILED = "failed"


class Outcome(StrEnum):
    """How a step ended. RETRY stays where it is: the same step may work later."""

    OK = "ok"
    ERROR = "error"
    RETRY = "retry"


NEXT: dict[tuple[State, Outcome], State] = {
    (State.FETCH, Outcome.OK): State.INSTALL,
    (State.FETCH, Outcome.ERROR): State.ROLLBACK,
    (State.FETCH, Outcome.RETRY): State.FETCH,
    (State.INSTALL, Outcome.OK): State.VERIFY,
    (State.INSTALL, Outcome.ERROR): State.ROLLBACK,
    (State.INSTALL, Outcome.RETRY): State.INSTALL,
    (State.VERIFY, Outcome.OK): State.COMMIT,
    (State.VERIFY, Outcome.ERROR): State.ROLLBACK,
    (State.VERIFY, Outcome.RETRY): State.VERIFY,
    (State.COMMIT, Outcome.OK): State.DONE,
    (State.COMMIT, Outcome.ERROR): State.ROLLBACK,
    (State.COMMIT, Outcome.RETRY): State.COMMIT,
    (State.ROLLBACK, Outcome.OK): State.FAILED,
    (State.ROLLBACK, Outcome.ERROR): State.ROLLBACK,
    (State.ROLLBACK, Outcome.RETRY): State.ROLLBACK,
}
TERMINAL = frozenset({State.DONE, State.FAILED})
MAX_ENTRIES = 28


class Progress(msgspec.Struct, frozen=True):
    """What is saved before a state is entered.

    Attributes:
        epoch: Of the desired state that is being installed.
        version: Of the same.
        state: The state being entered.
        entries: How often a state was entered after a start of the agent, without moving on.
        code: Why it goes back, from the error catalogue.
        message: The sentence that goes with it.
    """

    epoch: int
    version: int
    state: State
    entries: int = 0
    code: str = ""
    message: str = ""

    @property
    def target(self) -> Version:
        """The desired state that is being installed."""
        return Version(self.epoch, self.version)


def begin(target: Version) -> Progress:
    """Return the first entry of an update."""
    return Progress(target.epoch, target.version, State.FETCH)


def advance(progress: Progress, outcome: Outcome, *, code: str = "", message: str = "") -> Progress:
    """Return what to save after a step ended."""
    state = NEXT[progress.state, outcome]
    if state is progress.state:
        return progress
    moved = replace(progress, state=state, entries=0)
    if outcome is Outcome.ERROR and not progress.code:
        return replace(moved, code=code, message=message[:500])
    return moved


def resume(progress: Progress) -> Progress:
    """Return what to save when the agent starts in the middle of an update.

    Beyond MAX_ENTRIES starts inside one step the update goes back: the step kills the device.
    """
    if progress.state in TERMINAL:
        return progress
    if progress.entries + 1 >= MAX_ENTRIES and progress.state is not State.ROLLBACK:
        return replace(
            progress,
            state=State.ROLLBACK,
            entries=0,
            code=progress.code or "internal",
            message=progress.message
            or f"the agent was started {MAX_ENTRIES} times inside step {progress.state.value!r}",
        )
    return replace(progress, entries=progress.entries + 1)
