"""The processes of the demo: started with a log file each, ended together."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub.settings import environment
from protocol.errors import Code, FleetError

_POLL_SECONDS = 0.05
_END_SECONDS = 10.0


class StoryError(FleetError):
    """Something the demo promises did not happen."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message, code=Code.INTERNAL, hint=hint)


@dataclass(frozen=True, slots=True)
class Child:
    """A process of ours."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        """End it at once, as a power cut would: SIGKILL."""
        self.process.kill()
        self.process.wait()


class Processes:
    """Starts processes and ends those that still run.

    They get sessions of their own, so that Ctrl-C reaches the demo alone, which then ends them in
    order.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._children: list[Child] = []
        logs.mkdir(parents=True, exist_ok=True)

    def start(
        self,
        name: str,
        module: str,
        arguments: Sequence[str],
        extra: Mapping[str, str] | None = None,
    ) -> Child:
        """Start `python -m module arguments`; its output goes to `<name>.log`."""
        log = self._logs / f"{name}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if name.startswith("link") else out,
                stderr=out,
                env={**environment(), **(extra or {})},
                start_new_session=True,
            )
        child = Child(name, process, log)
        self._children.append(child)
        return child

    def run(self, name: str, module: str, arguments: Sequence[str], given: str = "") -> None:
        """Run a process to its end, or raise StoryError with what it said."""
        child = self.start(name, module, arguments)
        child.process.communicate(given.encode(), timeout=60)
        if child.process.returncode:
            raise StoryError(f"{name} failed: {tail(child.log)}", f"read {child.log}")

    def link(self, name: str, target: str) -> tuple[Child, int]:
        """Start a TCP link to `target` that can be cut; return it and its port."""
        arguments = ["--listen", "0", "--target", target]
        child = self.start(f"link-{name}", "simulator.link", arguments)
        line = child.process.stdout.readline() if child.process.stdout else b""
        return child, int(json.loads(line)["port"])

    def running(self) -> list[Child]:
        """Return the processes that have not ended."""
        return [child for child in self._children if child.process.poll() is None]

    def wait_for(
        self,
        what: str,
        seconds: float,
        look: Callable[[], Any],
        tell: Callable[[], None] | None = None,
    ) -> Any:
        """Return the first true answer of `look`.

        Raises:
            StoryError: It did not come within `seconds`, or a process we need ended.
        """
        waiter = threading.Event()
        for _ in range(int(seconds / _POLL_SECONDS)):
            if answer := look():
                return answer
            if tell:
                tell()
            for child in self._children:
                if child.process.poll() not in (None, 0, -signal.SIGKILL):
                    raise StoryError(f"{child.name} ended: {tail(child.log)}", f"read {child.log}")
            waiter.wait(_POLL_SECONDS)
        raise StoryError(f"{what}: not within {seconds:g} s", f"read the logs in {self._logs}")

    def stop(self) -> None:
        """End everything: SIGTERM in reverse order, SIGKILL for what does not listen."""
        running = self.running()
        for child in reversed(running):
            child.process.terminate()
        for child in reversed(running):
            try:
                child.process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()


def say_to(child: Child, word: str) -> None:
    """Write a line to a process."""
    if child.process.stdin:
        child.process.stdin.write(f"{word}\n".encode())
        child.process.stdin.flush()


def tail(log: Path, lines: int = 5) -> str:
    """Return the last lines of a log in one."""
    text = log.read_text(errors="replace").strip().splitlines()[-lines:]
    return " | ".join(text)[-800:]
