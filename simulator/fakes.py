"""Small working things that play the agent's ports in memory.

They refuse what the real ones refuse; `tests/contract` holds them to it. Failures are handed out on
request only, so a test or a scenario reads as a script.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from urllib.parse import urlsplit

from agent.core.plan import Instance, InstanceState, ModuleSpec, Observed
from agent.core.ports import Clock, Pulled
from protocol.errors import Code, DeniedError, DeviceError, FleetError, InvalidError
from protocol.errors import UnavailableError as NotNowError
from protocol.ids import ImageRef
from protocol.messages import Credential

_START = datetime(2030, 1, 1, tzinfo=UTC)
_FIRST_PORT = 20000
_IMAGE_BYTES = 1000


class ManualClock:
    """Time that moves only when someone sleeps or calls `advance`.

    Args:
        start: The first moment.
        waits: False: a sleeper moves the time itself and goes on. True: sleepers wait until
            `advance` has passed them, so several tasks can share the clock.
    """

    def __init__(self, start: datetime = _START, *, waits: bool = False) -> None:
        self._start = start
        self._elapsed = 0.0
        self._waits = waits
        self._order = count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self.slept: list[float] = []

    def now(self) -> datetime:
        """Return the present moment."""
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        """Return seconds since the clock was made."""
        return self._elapsed

    def advance(self, seconds: float) -> None:
        """Move the time and wake everyone whose time has come, in order."""
        self._elapsed += seconds
        while self._sleepers and self._sleepers[0][0] <= self._elapsed:
            waiter = heapq.heappop(self._sleepers)[2]
            if not waiter.done():
                waiter.set_result(None)

    async def sleep(self, seconds: float) -> None:
        """Wait; others run meanwhile, always."""
        self.slept.append(seconds)
        waiter = asyncio.get_running_loop().create_future()
        if self._waits:
            due = self._elapsed + max(0.0, seconds)
            heapq.heappush(self._sleepers, (due, next(self._order), waiter))
        else:
            self.advance(max(0.0, seconds))
            waiter.get_loop().call_soon(_wake, waiter)
        await waiter


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


Answer = Callable[[Instance, str, bytes | None], tuple[int, bytes]]


def _healthy(_instance: Instance, _path: str, _body: bytes | None) -> tuple[int, bytes]:
    return 200, b"{}"


@dataclass
class FakeMachine:
    """What a device keeps when its agent restarts: images, instances, and a script of failures.

    Attributes:
        offered: What the registry has: bytes to pull by digest; None for everything.
        corrupt: Digests whose content the registry altered.
        refused: Credential tokens the registry does not accept.
        pull_failures: Errors the next pulls end with.
        start_failures: Errors the next starts end with.
        answer: What the servers of modules say: (instance, path, body) to (status, answer); may
            raise FleetError.
    """

    offered: dict[str, int] | None = None
    corrupt: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    pull_failures: deque[FleetError] = field(default_factory=deque)
    start_failures: deque[FleetError] = field(default_factory=deque)
    answer: Answer = _healthy
    is_up: bool = True
    images: set[str] = field(default_factory=set)
    instances: dict[str, Instance] = field(default_factory=dict)
    specs: dict[str, ModuleSpec] = field(default_factory=dict)
    lines: dict[str, list[str]] = field(default_factory=dict)
    pulls: list[str] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)
    ports: count[int] = field(default_factory=lambda: count(_FIRST_PORT))

    def exit(self, instance_id: str, code: int | None) -> None:
        """Let a running instance end with this code; None when nobody saw it."""
        self.instances[instance_id] = replace(
            self.instances[instance_id],
            state=InstanceState.EXITED,
            endpoint=None,
            exit_code=code,
        )
        self.lines[instance_id].append(f"exit {code}")


class FakeRuntime:
    """A container engine in a dict.

    Args:
        clock: Dates instances.
        machine: What is there already; a new runtime object on the same machine adopts it.
    """

    def __init__(self, clock: Clock, machine: FakeMachine | None = None) -> None:
        self._clock = clock
        self.machine = machine or FakeMachine()

    @property
    def name(self) -> str:
        """Name of the runtime."""
        return "simulated"

    async def pull(self, image: ImageRef, credential: Credential) -> Pulled:
        """Bring an image; see the port."""
        self._answer()
        machine, digest = self.machine, image.digest
        if digest is None:
            raise InvalidError(f"image {str(image)!r} is not pinned", code=Code.ID_INVALID)
        if digest in machine.images:
            return Pulled(0)
        machine.pulls.append(digest)
        if machine.pull_failures:
            raise machine.pull_failures.popleft()
        if credential.token in machine.refused:
            raise DeniedError(f"{str(image)!r} is refused", code=Code.REGISTRY_REFUSED)
        if machine.offered is not None and digest not in machine.offered:
            raise NotNowError(f"{str(image)!r} is not there", code=Code.IMAGE_UNAVAILABLE)
        if digest in machine.corrupt:
            raise InvalidError(f"{str(image)!r} was altered", code=Code.DIGEST_MISMATCH)
        machine.images.add(digest)
        return Pulled(_IMAGE_BYTES if machine.offered is None else machine.offered[digest])

    async def observe(self) -> Observed:
        """Return what is there; see the port."""
        self._answer()
        instances = tuple(self.machine.instances[key] for key in sorted(self.machine.instances))
        return Observed(frozenset(self.machine.images), instances)

    async def start(self, spec: ModuleSpec) -> Instance:
        """Start an instance; see the port."""
        self._answer()
        machine = self.machine
        old = machine.instances.get(spec.instance_id)
        if old is not None and old.state is InstanceState.RUNNING:
            return old
        if spec.image.digest is None or spec.image.digest not in machine.images:
            raise DeviceError(f"{str(spec.image)!r} was not pulled", code=Code.IMAGE_UNAVAILABLE)
        if machine.start_failures:
            raise machine.start_failures.popleft()
        started = Instance(
            id=spec.instance_id,
            module=spec.name,
            fingerprint=spec.fingerprint,
            state=InstanceState.RUNNING,
            image=spec.image.digest,
            endpoint=f"http://127.0.0.1:{next(machine.ports)}",
            started_at=self._clock.now().timestamp(),
        )
        machine.instances[started.id] = started
        machine.specs[started.id] = spec
        machine.lines[started.id] = ["module started"]
        return started

    async def stop(self, instance_id: str, *, grace_seconds: float = 10.0) -> None:  # noqa: ARG002 - an instance in a dict stops at once
        """Stop and remove an instance; see the port."""
        self._answer()
        if self.machine.instances.pop(instance_id, None) is not None:
            self.machine.stops.append(instance_id)
            del self.machine.specs[instance_id], self.machine.lines[instance_id]

    async def logs(self, instance_id: str, *, tail: int = 100) -> str:
        """Return the last lines an instance wrote; see the port."""
        lines = self.machine.lines.get(instance_id, [])
        return "".join(f"{line}\n" for line in lines[-tail:]) if tail > 0 else ""

    async def remove_images(self, keep: frozenset[str]) -> None:
        """Remove images; see the port."""
        self._answer()
        used = {instance.image for instance in self.machine.instances.values()}
        self.machine.images &= keep | used

    def _answer(self) -> None:
        if not self.machine.is_up:
            raise NotNowError("the container engine is down", code=Code.RUNTIME_UNAVAILABLE)


class FakeProber:
    """Asks the modules of a FakeMachine."""

    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine

    async def request(
        self, url: str, body: bytes | None, *, timeout_seconds: float
    ) -> tuple[int, bytes]:
        """Return what the machine's script says; see the port."""
        parts = urlsplit(url)
        endpoint = f"{parts.scheme}://{parts.netloc}"
        for instance in self._machine.instances.values():
            if instance.endpoint == endpoint:
                return self._machine.answer(instance, parts.path, body)
        raise DeviceError(
            f"nothing answers at {url!r} within {timeout_seconds:g} seconds",
            code=Code.PROBE_FAILED,
        )
