"""Observe, plan, act, report, repeat. Level-triggered: a lost message costs one tick."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog

from agent.core import report
from agent.core.desired import Version
from agent.core.plan import InstanceState, Observed, Plan, Pull, Start
from agent.core.planner import plan
from agent.core.ports import (
    Clock,
    Connected,
    Disconnected,
    Outbox,
    Prober,
    Received,
    Runtime,
    Transport,
    TransportEvent,
)
from agent.core.report import Facts, Refusal
from agent.core.restart import Restarts
from agent.courier import Courier
from agent.executor import Executor
from agent.feeder import Feeder, Hooks
from agent.memory import Memory
from agent.reporter import Reporter
from agent.updater import Updater
from protocol import codec
from protocol.errors import Code, FleetError
from protocol.ids import ModuleName
from protocol.manifest import InputSource
from protocol.messages import DesiredGet
from protocol.topics import DownKind, UpKind

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Rims:
    """The outside world of one agent."""

    runtime: Runtime
    transport: Transport
    prober: Prober
    outbox: Outbox
    clock: Clock


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """How the loop behaves.

    Attributes:
        version: Of the agent, as it reports it.
        inputs: Folder whose subfolders feed modules.
        tick_seconds: Longest time between two looks at the runtime.
        ask_seconds: Longest time between two questions for the desired state.
        on_report: Told every new report.
        background: Further things that run as long as the agent does.
    """

    version: str
    inputs: Path
    tick_seconds: float = 1.0
    ask_seconds: float = 60.0
    on_report: Callable[[dict[str, Any]], None] = lambda _reported: None
    background: tuple[Callable[[], Coroutine[Any, Any, None]], ...] = ()


@dataclass(frozen=True, slots=True)
class Organs:
    """The parts of an agent that the loop conducts."""

    memory: Memory
    updater: Updater
    executor: Executor
    courier: Courier
    reporter: Reporter
    restarts: Restarts
    acting: asyncio.Lock
    wake: asyncio.Event


class Agent:
    """One device. `run` ends only when cancelled."""

    def __init__(self, rims: Rims, organs: Organs, settings: LoopSettings) -> None:
        self._rims = rims
        self._organs = organs
        self._settings = settings
        self._offered: bytes | None = None
        self._refusal: Refusal | None = None
        self._observed = Observed(frozenset(), ())
        self._connected = False
        self._ask_at = 0.0
        self._update: asyncio.Task[None] | None = None
        self._heal: asyncio.Task[None] | None = None
        self._feeding: dict[tuple[ModuleName, InputSource], asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Run the device until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep(lambda: self._rims.transport.run(self._on_event)))
            group.create_task(self._keep(self._organs.courier.run))
            group.create_task(self._reconcile(group))
            for work in self._settings.background:
                group.create_task(self._keep(work))

    async def _keep(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin a part again when it fails: that must end neither the others nor the agent."""
        while True:
            try:
                await work()
            except (FleetError, OSError) as error:
                log.warning("part.failed", part=_name(work), why=str(error))
            except Exception:
                log.exception("part.crashed", part=_name(work))
            else:
                return
            await self._rims.clock.sleep(self._settings.tick_seconds)

    # ---- what the hub says ----------------------------------------------------------------------

    def _on_event(self, event: TransportEvent) -> None:
        match event:
            case Connected():
                log.info("hub.connected")
                self._connected, self._ask_at = True, 0.0
                self._organs.courier.connected()
                self._organs.reporter.connected()
            case Disconnected(reason):
                log.info("hub.disconnected", reason=reason)
                self._connected = False
            case Received(kind, body):
                self._receive(kind, body)
        self._organs.wake.set()

    def _receive(self, kind: DownKind, body: bytes) -> None:
        handlers: dict[DownKind, Callable[[bytes], None]] = {
            DownKind.DESIRED: self._offer,
            DownKind.ACK: self._organs.courier.acknowledged,
            DownKind.REPORTED_ACK: self._organs.reporter.acknowledged,
        }
        try:
            handlers[kind](body)
        except FleetError as error:
            log.warning("message.refused", kind=kind, code=error.code, why=str(error))
        except Exception:  # one bad message must not end the connection
            log.exception("message.crashed", kind=kind)

    def _offer(self, body: bytes) -> None:
        self._offered = body

    # ---- one tick -------------------------------------------------------------------------------

    async def _reconcile(self, group: asyncio.TaskGroup) -> None:
        while True:
            self._organs.wake.clear()
            try:
                await self._tick(group)
            except FleetError as error:
                log.warning("tick.failed", code=error.code, why=str(error))
            except Exception:  # one bad tick must not end the supervision of what runs
                log.exception("tick.crashed")
            try:
                async with asyncio.timeout(self._settings.tick_seconds):
                    await self._organs.wake.wait()
            except TimeoutError:
                pass

    async def _tick(self, group: asyncio.TaskGroup) -> None:
        self._ask()
        await self._accept()
        if self._organs.updater.pending and (self._update is None or self._update.done()):
            self._update = group.create_task(self._keep(self._organs.updater.run))
        try:
            await self._supervise(group)
        except FleetError as error:  # the hub shall hear of it, so the tick goes on
            log.warning("supervision.failed", code=error.code, why=str(error))
            self._observed = Observed(frozenset(), ())
        self._feed(group)
        if self._organs.reporter.report(self._report()):
            self._settings.on_report(self._organs.reporter.newest)

    def _ask(self) -> None:
        now, accepted = self._rims.clock.monotonic(), self._organs.memory.accepted
        if self._connected and now >= self._ask_at:
            held = accepted.version if accepted else Version()
            message = codec.encode(DesiredGet(held.epoch, held.version))
            if self._rims.transport.publish(UpKind.DESIRED_GET, message):
                self._ask_at = now + self._settings.ask_seconds

    async def _accept(self) -> None:
        envelope, self._offered = self._offered, None
        if envelope is None:
            return
        try:
            is_new = self._organs.memory.offer(envelope, self._rims.clock.now())
        except FleetError as error:
            log.warning("desired.refused", code=error.code, why=str(error))
            if error.retryable:  # this device could not store it
                self._offered = envelope
            elif error.code is not Code.VERSION_ROLLED_BACK:  # an old copy may simply be late
                self._refusal = Refusal.of(error)
            return
        self._refusal = None
        if is_new:
            log.info("desired.accepted", version=self._organs.memory.floor.version)
            await self._cancel_update()

    async def _cancel_update(self) -> None:
        """The newest desired state always supersedes: drop what is under way."""
        task, self._update = self._update, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])

    async def _supervise(self, group: asyncio.TaskGroup) -> None:
        async with self._organs.acting:
            self._observed = await self._rims.runtime.observe()
            wanted = self._organs.updater.wanted()
            self._note(self._observed, {spec.instance_id for spec in wanted})
            steps = plan(wanted, self._observed, self._organs.restarts, self._rims.clock.now())
            await self._perform(steps, group)

    def _note(self, observed: Observed, wanted: set[str]) -> None:
        now, restarts = self._rims.clock.now(), self._organs.restarts
        for instance in observed.instances:
            if instance.state is InstanceState.EXITED:
                restarts.saw_end(instance.id, now)
            else:
                started = datetime.fromtimestamp(instance.started_at, UTC)
                restarts.saw_running(instance.id, max(now - started, timedelta()))
        restarts.keep_only(wanted)

    async def _perform(self, steps: Plan, group: asyncio.TaskGroup) -> None:
        """Perform a plan; a pull never blocks supervision, one failure does not stop the rest."""
        pulls = [step for step in steps if isinstance(step, Pull)]
        healing = self._heal is not None and not self._heal.done()
        if pulls and not healing:
            self._heal = group.create_task(self._keep(lambda: self._pull(pulls)))
        absent = {pull.image for pull in pulls}
        for step in steps:
            if isinstance(step, Pull) or (isinstance(step, Start) and step.spec.image in absent):
                continue
            instance_id = step.spec.instance_id if isinstance(step, Start) else step.instance_id
            if isinstance(step, Start):
                self._organs.restarts.started(instance_id)
            try:
                await self._organs.executor.execute(step)
            except FleetError as error:
                log.warning("step.failed", instance=instance_id, code=error.code, why=str(error))
                if isinstance(step, Start) and not error.retryable:
                    self._organs.restarts.saw_end(instance_id, self._rims.clock.now())
        if steps:
            self._observed = await self._rims.runtime.observe()

    async def _pull(self, pulls: list[Pull]) -> None:
        """Bring back images that vanished from the device."""
        for step in pulls:
            try:
                await self._organs.executor.execute(step)
            except FleetError as error:
                log.warning("image.missing", image=str(step.image), code=error.code, why=str(error))
                await self._rims.clock.sleep(self._settings.tick_seconds)
        self._organs.wake.set()

    # ---- inputs and report ----------------------------------------------------------------------

    def _feed(self, group: asyncio.TaskGroup) -> None:
        good = self._organs.memory.good
        wanted = {
            (name, source)
            for name, spec in (good.specs if good else {}).items()
            for source in spec.inputs.values()
        }
        for key in self._feeding.keys() - wanted:
            self._feeding.pop(key).cancel()
        for key in wanted - self._feeding.keys():
            feeder = Feeder(
                *key,
                self._settings.inputs,
                (self._rims.prober, self._rims.outbox, self._rims.clock),
                Hooks(self._endpoint, self._is_routed, self._organs.courier.wake),
            )
            self._feeding[key] = group.create_task(self._keep(feeder.run))

    def _endpoint(self, module: ModuleName) -> str | None:
        good = self._organs.memory.good
        spec = good.specs.get(module) if good else None
        for instance in self._observed.instances:
            if spec and instance.id == spec.instance_id:
                return instance.endpoint if instance.state is InstanceState.RUNNING else None
        return None

    def _is_routed(self, module: ModuleName, output: str) -> bool:
        good = self._organs.memory.good
        routes = good.manifest.routes.values() if good else ()
        return any(r.sink == "upstream" and r.matches(module, output) for r in routes)

    def _report(self) -> dict[str, Any]:
        memory = self._organs.memory
        return report.build(
            Facts(
                agent_version=self._settings.version,
                runtime=self._rims.runtime.name,
                bytes_pulled=memory.bytes_pulled,
                good=memory.good,
                accepted=memory.accepted,
                progress=memory.progress,
                hindrance=self._organs.updater.hindrance,
                refusal=self._refusal,
                observed=self._observed,
                restarts=self._organs.restarts.count,
            )
        )


def _name(work: Callable[..., object]) -> str:
    return getattr(work, "__qualname__", repr(work))
