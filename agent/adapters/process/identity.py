"""Tells processes apart for good: a process id alone comes back for another process.

Decides whether a process is the one that was started, and which ones belong to it. Reads `/proc`;
signals only what it has identified.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_STATE, _SESSION, _START = 0, 3, 19  # fields 3, 6 and 22 of proc(5), counted from the state


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process, never another: its id, its start in clock ticks since boot, and the boot."""

    pid: int
    start_ticks: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class _Stat:
    state: str
    session: int
    start_ticks: int


def identify(pid: int, boot_id: str) -> ProcessIdentity | None:
    """Return the identity of a process that exists (a zombie does), or None."""
    stat = _stat(pid)
    return None if stat is None else ProcessIdentity(pid, stat.start_ticks, boot_id)


def is_running(identity: ProcessIdentity, boot_id: str) -> bool:
    """Tell whether exactly this process runs; a zombie does not."""
    stat = _stat(identity.pid)
    same = identity.boot_id == boot_id and stat is not None
    return same and stat is not None and _is_it(stat, identity) and stat.state not in "ZX"


def reap(identity: ProcessIdentity, boot_id: str) -> int | None:
    """Return the exit code of a process that ended, 128 + signal when it was killed.

    None when only its parent could know and this process is not it.
    """
    stat = _stat(identity.pid)
    if identity.boot_id != boot_id or stat is None or not _is_it(stat, identity):
        return None
    try:
        pid, status = os.waitpid(identity.pid, os.WNOHANG)
    except ChildProcessError:
        return None
    if pid == 0:
        return None
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def terminate(identity: ProcessIdentity, boot_id: str) -> None:
    """Ask a running session leader and its process group to end."""
    if is_running(identity, boot_id):
        with suppress(ProcessLookupError):
            os.killpg(identity.pid, signal.SIGTERM)


def kill_session(identity: ProcessIdentity, boot_id: str) -> None:
    """Kill everything a session leader left behind, itself included.

    The id of a session is not given away while a member lives. So when its leader's number belongs
    to another process today, there are no members left.
    """
    leader = _stat(identity.pid)
    if identity.boot_id != boot_id or (leader is not None and not _is_it(leader, identity)):
        return
    for pid in _pids():
        stat = _stat(pid)
        if stat is not None and stat.session == identity.pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def find_session_leader(variable: str, value: str) -> int | None:
    """Return the session leader whose environment holds `variable=value`, or None."""
    wanted = f"{variable}={value}".encode()
    for pid in _pids():
        stat = _stat(pid)
        if stat is None or stat.session != pid:
            continue
        with suppress(OSError):
            if wanted in (_PROC / str(pid) / "environ").read_bytes().split(b"\0"):
                return pid
    return None


def _pids() -> Iterator[int]:
    with os.scandir(_PROC) as scan:
        yield from [int(entry.name) for entry in scan if entry.name.isdecimal()]


def _stat(pid: int) -> _Stat | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return _Stat(fields[_STATE], int(fields[_SESSION]), int(fields[_START]))


def _is_it(stat: _Stat, identity: ProcessIdentity) -> bool:
    return stat.start_ticks == identity.start_ticks
