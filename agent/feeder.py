"""Feeds files of the device to its modules and stores each answer, exactly once per file.

The answer and the note that its file is done become durable together; a file counts as itself by
its inode and time of change, so that a name may come again. A module's `x-inputs` names a folder;
whoever owns the camera moves finished files into it (write under a name with a leading dot, then
rename). A file that somebody still has open for writing is left alone.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from agent.core.ports import MAX_BODY_BYTES, Clock, Outbox, Prober
from protocol.errors import Code, FleetError
from protocol.ids import ModuleName
from protocol.manifest import InputSource

MAX_FILE_BYTES = 16 * 1024 * 1024
_IDLE_SECONDS = 0.1
_RETRY_SECONDS = 0.5
_TRIES = 3
_FORGET_BATCH = 100
_TIMEOUT_SECONDS = 30.0
_HANG_SECONDS = 29.0  # timers may be a little early
_OK = 200
_SERVER_ERROR = 500
_BUSY = 503
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a feeder asks of the agent.

    Attributes:
        endpoint: Where a module answers now, or None.
        is_routed: Whether a route takes this output of this module to the hub.
        stored: Called after an answer was stored.
    """

    endpoint: Callable[[ModuleName], str | None]
    is_routed: Callable[[ModuleName, str], bool]
    stored: Callable[[], None]


class Feeder:
    """Serves one input of one module."""

    def __init__(
        self,
        module: ModuleName,
        source: InputSource,
        folder: Path,
        rims: tuple[Prober, Outbox, Clock],
        hooks: Hooks,
    ) -> None:
        self._module = module
        self._source = source
        self._folder = folder / source.directory
        self._prober, self._outbox, self._clock = rims
        self._hooks = hooks
        self._failing = ""
        self._failures = 0
        self._done: list[str] = []

    async def run(self) -> None:
        """Feed until cancelled, or raise FleetError (`disk-full`, ...) or OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        while True:
            waits = False
            for name in self._names():
                if waits := not await self._feed(name):
                    break
                if len(self._done) >= _FORGET_BATCH:
                    self._forget_done()
            self._forget_done()
            await self._clock.sleep(_RETRY_SECONDS if waits else _IDLE_SECONDS)

    def _names(self) -> list[str]:
        return sorted(p.name for p in self._folder.iterdir() if not p.name.startswith("."))

    def _forget_done(self) -> None:
        """Drop the notes of files that are gone; after a crash a few stay behind, which is safe."""
        if self._done:
            # A name that a power cut brings back must still meet its note.
            descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            self._outbox.forget_consumed(self._done)
            self._done.clear()

    async def _feed(self, name: str) -> bool:
        """Answer one file; False when it has to be tried again later."""
        path = self._folder / name
        found = self._read(path)
        if found is None:
            return True
        status, body = found
        version = f"{status.st_ino}.{status.st_mtime_ns}"
        key = f"{self._module}/{self._source.directory}/{_text(name)}#{version}"
        if self._outbox.is_consumed(key):
            # The answer is stored: the agent ended before it could remove the file.
            self._remove(path, key)
            return True
        if status.st_size > MAX_FILE_BYTES:
            self._store(path, key, b"", {"error": f"{Code.TOO_LARGE}: {status.st_size} bytes"})
            return True
        endpoint = self._hooks.endpoint(self._module)
        return endpoint is not None and await self._ask(path, key, body, endpoint)

    def _read(self, path: Path) -> tuple[os.stat_result, bytes] | None:
        """Return a finished input and what is known of it; None for what is none, or not yet."""
        try:
            if not stat.S_ISREG(path.stat().st_mode) or _is_being_written(path):
                return None
            status = path.stat()
            body = path.read_bytes() if status.st_size <= MAX_FILE_BYTES else b""
        except FileNotFoundError:
            return None
        except OSError as error:
            log.debug("input.unreadable", module=self._module, input=path.name, why=str(error))
            return None
        return status, body

    async def _ask(self, path: Path, key: str, body: bytes, endpoint: str) -> bool:
        started = self._clock.monotonic()
        try:
            status, answer = await self._prober.request(
                f"{endpoint}/{self._source.path.removeprefix('/')}",
                body,
                timeout_seconds=_TIMEOUT_SECONDS,
            )
        except FleetError as error:
            log.info("input.waits", module=self._module, input=path.name, why=str(error))
            # A module that cannot be reached says nothing about the file; one that hangs does.
            hung = self._clock.monotonic() - started >= _HANG_SECONDS
            if not hung or self._again(key):
                return False
            self._store(path, key, b"", {"error": f"{error.code}: {error}"})
            return True
        latency_ms = (self._clock.monotonic() - started) * 1000
        if status == _BUSY or (status >= _SERVER_ERROR and self._again(key)):
            return False
        properties = {"latencyMs": f"{latency_ms:.3f}"}
        if status != _OK:
            properties["error"] = f"status {status}"
        if len(answer) > MAX_BODY_BYTES:
            properties["error"] = f"{Code.TOO_LARGE}: an answer of {len(answer)} bytes"
            answer = b""
        self._store(path, key, answer, properties)
        return True

    def _again(self, key: str) -> bool:
        """Tell whether a file that a module failed on is worth another try."""
        if key != self._failing:
            self._failing, self._failures = key, 0
        self._failures += 1
        return self._failures < _TRIES

    def _store(self, path: Path, key: str, body: bytes, properties: dict[str, str]) -> None:
        properties["input"] = _text(path.stem)
        at_ms, output = int(self._clock.now().timestamp() * 1000), self._source.output
        if self._hooks.is_routed(self._module, output):
            self._outbox.add(self._module, output, at_ms, body, properties, consumed=key)
            self._hooks.stored()
        self._remove(path, key)

    def _remove(self, path: Path, key: str) -> None:
        path.unlink(missing_ok=True)
        self._done.append(key)


def _is_being_written(path: Path) -> bool:
    """Tell whether a process of this machine has the file open for writing.

    Asked by taking a read lease for a moment, which the kernel refuses then. Where leases are not
    to be had (another owner's file, a network folder) the answer is no, and the rule of the dot
    and the rename stands alone.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _text(name: str) -> str:
    """Return a file name as text that can be stored: bytes that are not UTF-8 are escaped."""
    return os.fsencode(name).decode(errors="backslashreplace")
