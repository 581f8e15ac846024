"""Runs the model: one thread, requests in order, a time limit each.

Decides what a failing or late run() is answered with. Knows no HTTP.
"""

import logging
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol

from .deadline import Deadline, DeadlineError
from .errors import BadInputError
from .exchange import (
    INTERNAL_ERROR,
    SCRIPT_ERROR,
    Answer,
    ScoreRequest,
    answer_for,
    error_answer,
)
from .scorers.scorer import Scorer

log = logging.getLogger("rimward.inference")


class Job(Protocol):
    """A request that waits for its answer. `started` is set when run() begins, on any clock."""

    request: ScoreRequest
    started: float | None

    def finish(self, answer: Answer) -> None:
        """Take the answer. Called from the worker's thread, once."""


class Worker:
    """Scores jobs in the order of submission, in the thread that calls work()."""

    def __init__(self, scorer: Scorer, timeout_ms: int) -> None:
        self._scorer = scorer
        self._timeout_ms = timeout_ms
        self._deadline = Deadline(timeout_ms)
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()

    def submit(self, job: Job) -> None:
        """Queue a job; from any thread. The caller bounds how many."""
        self._jobs.put(job)

    def stop(self) -> None:
        """Let work() return after the jobs queued so far; from any thread."""
        self._jobs.put(None)

    def work(self) -> None:
        """Score until stop()."""
        while (job := self._jobs.get()) is not None:
            job.started = time.monotonic()
            job.finish(self.answer(job.request))

    def answer(self, request: ScoreRequest) -> Answer:
        """Score one request; whatever goes wrong becomes an answer."""
        try:
            arguments = self._scorer.read(request)
        except BadInputError as error:
            return error_answer(error.status, str(error))
        except Exception:  # one inbound message: a bug in reading it must not end the server
            log.exception("the request could not be read")
            return error_answer(500, INTERNAL_ERROR)
        start = time.perf_counter()
        try:
            output = self._deadline.call(_bind(self._scorer, arguments))
        except DeadlineError:
            return self._late()
        # The user's code may raise anything, and sys.exit() in it must not end the server.
        except (Exception, SystemExit):
            log.exception("run() failed")
            return error_answer(500, SCRIPT_ERROR, failed=True)
        return _finished(output, (time.perf_counter() - start) * 1e3)

    def _late(self) -> Answer:
        log.error("run() took longer than %d ms and was ended", self._timeout_ms)
        return timeout_answer(self._timeout_ms)


def _bind(scorer: Scorer, arguments: dict[str, object]) -> Callable[[], object]:
    return lambda: scorer.run(arguments)


def _finished(output: object, elapsed_ms: float) -> Answer:
    try:
        return answer_for(output, elapsed_ms)
    except Exception:  # the result is the user's object: encoding it can raise anything
        log.exception("the result of run() cannot be sent")
        return error_answer(500, INTERNAL_ERROR)


def timeout_answer(timeout_ms: int) -> Answer:
    """Return the answer for a run() that took too long."""
    return error_answer(500, f"Scoring timeout after {timeout_ms} ms", failed=True)
