"""The way from the HTTP thread to the thread that scores, and back, with nobody left waiting.

The worker ends a late run() itself. Where it cannot (native code that does not return), the watch
here answers instead, and says that the worker is stuck until run() returns.
"""

import asyncio
import time
from collections.abc import Callable

from ..exchange import Answer, ScoreRequest, error_answer
from ..worker import Job, timeout_answer

LATE_GRACE_SECONDS = 0.25


class PendingJob(Job):
    """One request between the two threads."""

    def __init__(self, request: ScoreRequest, loop: asyncio.AbstractEventLoop) -> None:
        self.request = request
        self.started: float | None = None
        self.returned = False
        self.future: asyncio.Future[Answer] = loop.create_future()
        self._loop = loop

    def finish(self, answer: Answer) -> None:
        """Hand the answer to the HTTP thread."""
        self.returned = True
        self._loop.call_soon_threadsafe(self.settle, answer)

    def settle(self, answer: Answer) -> None:
        """Take the first answer; a later one is too late. In the HTTP thread only."""
        if not self.future.done():
            self.future.set_result(answer)


class Dispatcher:
    """Submits requests to the worker and awaits their answers."""

    def __init__(self, submit: Callable[[Job], None], timeout_ms: int) -> None:
        self._submit = submit
        self._timeout_ms = timeout_ms
        self._limit = timeout_ms / 1000 + LATE_GRACE_SECONDS
        self._last_stuck: PendingJob | None = None

    @property
    def is_stuck(self) -> bool:
        """Whether a run() is past its time limit and cannot be ended."""
        return self._last_stuck is not None and not self._last_stuck.returned

    async def score(self, request: ScoreRequest) -> Answer:
        """Return the answer of the worker, or the one for a run() that never returns."""
        loop = asyncio.get_running_loop()
        job = PendingJob(request, loop)
        watch = loop.call_later(self._limit, self._watch, job)
        self._submit(job)
        try:
            return await job.future
        finally:
            watch.cancel()

    def _watch(self, job: PendingJob) -> None:
        if job.future.done():
            return
        started = job.started
        if started is None and self.is_stuck:
            job.settle(error_answer(503, "The service is stuck.", ("retry-after", "1")))
            return
        left = self._limit if started is None else started + self._limit - time.monotonic()
        if left > 0:
            asyncio.get_running_loop().call_later(left, self._watch, job)
            return
        self._last_stuck = job
        job.settle(timeout_answer(self._timeout_ms))
