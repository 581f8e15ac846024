from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.adapters.images.store import boot_id
from agent.adapters.process.identity import (
    ProcessIdentity,
    find_session_leader,
    identify,
    is_running,
    kill_session,
    reap,
    terminate,
)
from agent.adapters.process.log import bound_log, read_tail

BOOT = boot_id()
SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
FAMILY = [
    sys.executable,
    "-S",
    "-c",
    (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)"
    ),
]


class Children:
    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, words: list[str], **env: str) -> tuple[ProcessIdentity, int]:
        process = subprocess.Popen(
            words, start_new_session=True, stdout=subprocess.PIPE, env=os.environ | env
        )
        self._started.append(process)
        identity = identify(process.pid, BOOT)
        assert identity is not None
        child = 0
        if words is FAMILY:
            assert process.stdout is not None
            child = int(process.stdout.readline())
        return identity, child

    def end(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture
def children() -> Iterator[Children]:
    made = Children()
    yield made
    made.end()


def eventually(claim: Callable[[], bool]) -> bool:
    for _ in range(500):
        if claim():
            return True
        time.sleep(0.01)
    return False


def is_there(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] not in "ZX"


def test_a_process_runs_until_it_ends(children: Children) -> None:
    process, _ = children.start(SLEEP)
    assert is_running(process, BOOT)

    terminate(process, BOOT)

    assert eventually(lambda: not is_running(process, BOOT))
    assert reap(process, BOOT) == 128 + signal.SIGTERM
    assert reap(process, BOOT) is None


def test_another_process_with_the_same_number_is_not_taken_for_it(children: Children) -> None:
    process, _ = children.start(SLEEP)
    before = replace(process, start_ticks=process.start_ticks - 1)
    other_boot = replace(process, boot_id="another")

    for stranger in (before, other_boot):
        assert not is_running(stranger, BOOT)
        terminate(stranger, BOOT)
        kill_session(stranger, BOOT)
        assert reap(stranger, BOOT) is None

    assert is_running(process, BOOT)


def test_what_a_dead_leader_leaves_behind_is_killed(children: Children) -> None:
    leader, child = children.start(FAMILY)
    os.kill(leader.pid, signal.SIGKILL)
    assert eventually(lambda: not is_running(leader, BOOT))
    assert is_there(child)

    kill_session(leader, BOOT)

    assert eventually(lambda: not is_there(child))


def test_a_leader_is_found_by_its_environment(children: Children) -> None:
    process, _ = children.start(SLEEP, RIMWARD_TEST_NONCE="one-of-a-kind-5512")

    def found() -> bool:  # the environment changes with exec, a moment after the start
        return find_session_leader("RIMWARD_TEST_NONCE", "one-of-a-kind-5512") == process.pid

    assert eventually(found)
    assert find_session_leader("RIMWARD_TEST_NONCE", "one-of-a-kind") is None


def test_nothing_is_identified_without_a_process() -> None:
    assert identify(2**22 + 1, BOOT) is None


def test_a_log_is_bounded_while_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"old line\n" * 100)
        bound_log(log, limit_bytes=500)
        writer.write(b"new line\n")
        bound_log(log, limit_bytes=500)

    assert log.read_bytes() == b"new line\n"
    assert read_tail(log, 2) == "old line\nnew line\n"


def test_an_absent_log_is_empty(tmp_path: Path) -> None:
    bound_log(tmp_path / "log")

    assert read_tail(tmp_path / "log", 10) == ""
