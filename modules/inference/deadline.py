"""Ends a call that takes too long, from inside: an alarm in the main thread, as Azure ML does it.

It frees the thread from Python code and from blocking system calls. A call into native code that
never returns cannot be ended this way; the routes answer for it (see `routes.py`).
"""

import signal
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

Result = TypeVar("Result")


class DeadlineError(BaseException):
    """The call ran out of time. Not an Exception, so that user code does not swallow it."""


class Deadline:
    """Calls with a time limit. Make and use it in the main thread only."""

    def __init__(self, timeout_ms: int) -> None:
        self._seconds = timeout_ms / 1000
        self._armed = False
        signal.signal(signal.SIGALRM, self._on_alarm)

    def call(self, function: Callable[[], Result]) -> Result:
        """Return what `function` returns; DeadlineError if that takes too long."""
        self._armed = True
        try:
            signal.setitimer(signal.ITIMER_REAL, self._seconds)
            return function()
        finally:
            self._armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _on_alarm(self, _signal: int, _frame: FrameType | None) -> None:
        if self._armed:
            self._armed = False
            raise DeadlineError
