from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hub.adapters.worker import Worker

ROOT = Path(__file__).resolve().parents[3]
SECONDS = 10.0
SLEEPER = """
import threading
from hub.adapters.worker import Worker

began, worker = threading.Event(), Worker("sleeper")
worker.submit(lambda: began.set() or threading.Event().wait())
began.wait()
"""


def test_jobs_are_done_one_at_a_time_in_their_order() -> None:
    done, worker, finished = list[int](), Worker("test"), threading.Event()

    for number in range(100):
        worker.submit(lambda number=number: done.append(number))  # type: ignore[misc]  # bound now
    worker.submit(finished.set)

    assert finished.wait(SECONDS)
    assert done == list(range(100))


def test_a_defect_in_a_job_is_told_and_ends_only_that_job(
    capsys: pytest.CaptureFixture[str],
) -> None:
    worker, finished = Worker("test"), threading.Event()

    worker.submit(lambda: threading.Event().wait("a word"))  # type: ignore[arg-type,return-value]  # the defect
    worker.submit(finished.set)

    assert finished.wait(SECONDS)
    said = capsys.readouterr()
    assert "job.failed" in said.out + said.err


def test_a_job_that_never_ends_does_not_keep_the_program_alive() -> None:
    ended = subprocess.run([sys.executable, "-c", SLEEPER], cwd=ROOT, timeout=60, check=False)

    assert ended.returncode == 0
