"""A thread that does long jobs one at a time and never holds up the end of the program.

What was not done by then is lost: whoever hands jobs in must be able to find out after a restart.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

import structlog

log = structlog.get_logger()


class Worker:
    """Does jobs in the order they came in; a defect in one is logged and ends only that job."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        # A daemon: the threads of an executor keep the process alive until every job is done.
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def submit(self, job: Callable[[], None]) -> None:
        """Take a job and return at once."""
        self._jobs.put(job)

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                job()
            except Exception:  # it may be a defect, and the next job must still be done
                log.exception("job.failed")
