"""The update, as a table that survives power loss. Pure.

A state is saved before it is entered and may be entered again after a crash, so the work of each
must be repeatable. Entries are counted over the whole update: a device that dies inside its steps
for ever gives up after MAX_ENTRIES writes, and the planner goes on with what was good.
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
MAX_MESSAGE = 500  # characters of a sentence in a report
MAX_ENTRIES = 28
_LAST_FORWARD = 20  # entries after which a start goes back; the rest is for the way back


class Progress(msgspec.Struct, frozen=True):
    """What is saved before a state is entered.

    Attributes:
        epoch: Of the desired state that is being installed.
        version: Of the same.
        state: The state being entered.
        entries: How often a state was entered in this update, this time included.
        code: Why it goes back, from the error catalogue.
        message: The sentence that goes with it.
    """

    epoch: int
    version: int
    state: State
    entries: int = 1
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
    moved = replace(progress, state=state, entries=progress.entries + 1)
    if outcome is Outcome.ERROR and not progress.code:
        return replace(moved, code=code, message=message[:MAX_MESSAGE])
    return moved


def resume(progress: Progress) -> Progress:
    """Return what to save when the agent starts in the middle of an update.

    After too many entries the update goes back, its steps kill the device; and when it dies going
    back as well, it has failed.
    """
    if progress.state in TERMINAL:
        return progress
    entered = replace(progress, entries=progress.entries + 1)
    if progress.state is State.ROLLBACK:
        return replace(entered, state=State.FAILED) if entered.entries >= MAX_ENTRIES else entered
    if progress.entries < _LAST_FORWARD:
        return entered
    return replace(
        entered,
        state=State.ROLLBACK,
        code="internal",
        message=f"the agent ended again and again, at last inside step {progress.state.value!r}",
    )
