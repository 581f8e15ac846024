"""How long a build may still take, whether somebody called it off, and programs it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hub.core.ports import Clock
from protocol.errors import Code, InvalidError

_POLL_SECONDS = 0.05
_OUTPUT_LIMIT = 16 * 1024


@dataclass(frozen=True, slots=True)
class Budget:
    """Time until `deadline` of a monotonic clock, or until `stop` is set."""

    clock: Clock
    deadline: float
    stop: threading.Event

    def check(self) -> None:
        """Return while the work may go on.

        Raises:
            InvalidError: `build-failed`.
        """
        if self.stop.is_set():
            raise InvalidError(
                "the build was cancelled", code=Code.BUILD_FAILED, hint="start it again"
            )
        if self.clock.monotonic() > self.deadline:
            raise InvalidError(
                "the build took longer than allowed",
                code=Code.BUILD_FAILED,
                hint="raise the time limit of builds, or use fewer dependencies",
            )


def run_program(
    command: Sequence[str],
    folder: Path,
    budget: Budget,
    environment: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Run a program in a folder and return its exit status and the end of what it wrote.

    It runs with `environment`, or with ours when that is None. It and everything it started is
    killed when the budget ends.

    Raises:
        InvalidError: `build-failed`, when the budget ends.
        FileNotFoundError: There is no such program.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
        status = _wait(process, budget)
        log.seek(max(0, log.seek(0, os.SEEK_END) - _OUTPUT_LIMIT))
        return status, log.read().decode("utf-8", "replace")


def _wait(process: subprocess.Popen[bytes], budget: Budget) -> int:
    try:
        while True:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(_POLL_SECONDS)
            budget.check()
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
