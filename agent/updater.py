"""Drives one update through its table: fetch, install, verify, commit, or back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

import structlog

from agent.core.backoff import Backoff
from agent.core.desired import Accepted
from agent.core.plan import ModuleSpec, Start
from agent.core.plan import Pull as PullAction
from agent.core.planner import beside
from agent.core.ports import Clock, Runtime
from agent.core.report import Refusal
from agent.core.update import TERMINAL, Outcome, Progress, State
from agent.executor import Executor
from agent.memory import Memory
from agent.verifier import Verifier
from protocol.errors import Code, DeviceError, FleetError

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Hands:
    """What an update works with."""

    runtime: Runtime
    executor: Executor
    verifier: Verifier
    clock: Clock
    backoff: Backoff
    random: Random


class Updater:
    """One update at a time; a newer desired state cancels it and begins again.

    `acting` is held while modules are started or stopped, so that supervision and update never work
    on the same module at once. `moved` is called after every step.
    """

    def __init__(
        self, memory: Memory, hands: Hands, acting: asyncio.Lock, moved: Callable[[], None]
    ) -> None:
        self._memory = memory
        self._hands = hands
        self._acting = acting
        self._moved = moved
        self.hindrance: Refusal | None = None
        self._steps: dict[State, Callable[[Accepted], Awaitable[None]]] = {
            State.FETCH: self._fetch,
            State.INSTALL: self._install,
            State.VERIFY: self._verify,
            State.COMMIT: self._commit,
            State.ROLLBACK: self._roll_back,
        }

    @property
    def pending(self) -> bool:
        """Whether an update is under way."""
        progress = self._memory.progress
        return progress is not None and progress.state not in TERMINAL

    def wanted(self) -> list[ModuleSpec]:
        """Return what shall be on the device at this point of the update."""
        memory = self._memory
        good = memory.good.specs if memory.good else {}
        proving = memory.progress and memory.progress.state in (
            State.INSTALL,
            State.VERIFY,
            State.COMMIT,
        )
        if proving and memory.accepted:
            return beside(good, memory.accepted.specs)
        return list(good.values())

    async def run(self) -> None:
        """Drive the update to its end. May be cancelled at any await and run again."""
        attempt = 0
        self.hindrance = None
        while (progress := self._memory.progress) and progress.state not in TERMINAL:
            if self._memory.accepted is None:
                return
            error = await self._enter(progress.state, self._memory.accepted)
            if self._memory.progress is not progress:
                return  # superseded meanwhile: how this step ended says nothing about the new one
            moved, error = self._record(progress, error)
            self.hindrance = Refusal.of(error) if error else None
            self._moved()
            if moved is progress:
                await self._hands.clock.sleep(
                    self._hands.backoff.delay(attempt, self._hands.random)
                )
                attempt += 1
            else:
                log.info("update.moved", version=moved.version, step=progress.state, to=moved.state)
                attempt = 0
        if progress and progress.state is State.DONE:
            await self._tidy()

    async def _enter(self, state: State, accepted: Accepted) -> FleetError | None:
        """Do the work of a step and return why it did not succeed."""
        try:
            await self._steps[state](accepted)
        except FleetError as error:
            log.warning("update.hindered", step=state, code=error.code, why=str(error))
            return error
        except Exception as error:  # a defect of ours must not leave the device between two sets
            log.exception("update.crashed", step=state)
            return DeviceError(f"step {state.value!r} crashed: {error!r}", code=Code.INTERNAL)
        return None

    def _record(
        self, progress: Progress, error: FleetError | None
    ) -> tuple[Progress, FleetError | None]:
        """Save how a step ended; what cannot be saved did not happen and is repeated."""
        if error is None:
            outcome = Outcome.OK
        elif error.retryable or progress.state is State.ROLLBACK:
            outcome = Outcome.RETRY
        else:
            outcome = Outcome.ERROR
        try:
            code, message = (error.code, str(error)) if error else ("", "")
            return self._memory.step(outcome, code=code, message=message), error
        except FleetError as unwritable:
            log.warning("update.not_saved", code=unwritable.code, why=str(unwritable))
            return progress, unwritable

    async def _tidy(self) -> None:
        """Remove the images of earlier sets; what still runs keeps its own until the next time."""
        good = self._memory.good.specs if self._memory.good else {}
        try:
            await self._hands.runtime.remove_images(
                frozenset(spec.image.digest for spec in good.values() if spec.image.digest)
            )
        except FleetError as error:
            log.warning("images.not_removed", code=error.code, why=str(error))

    async def _fetch(self, accepted: Accepted) -> None:
        """Pull every image while everything old goes on running."""
        present = (await self._hands.runtime.observe()).images
        images = {s.image for s in accepted.specs.values() if s.image.digest not in present}
        for image in sorted(images, key=str):
            await self._hands.executor.execute(PullAction(image))

    async def _install(self, accepted: Accepted) -> None:
        """Start what is new beside what is old; what cannot run beside it makes room first."""
        async with self._acting:
            keep = {spec.instance_id for spec in self.wanted()}
            observed = await self._hands.runtime.observe()
            for instance in observed.instances:
                if instance.id not in keep:
                    await self._hands.runtime.stop(instance.id)
            for spec in sorted(accepted.specs.values(), key=lambda s: (s.startup_order, s.name)):
                if spec.running:
                    await self._hands.executor.execute(Start(spec))

    async def _verify(self, accepted: Accepted) -> None:
        """Prove every module that changed; one that runs on unchanged has proved itself."""
        good = self._memory.good.specs if self._memory.good else {}
        for name, spec in sorted(accepted.specs.items()):
            if spec.running and not _same_proof(good.get(name), spec):
                await self._hands.verifier.verify(spec)

    async def _commit(self, _accepted: Accepted) -> None:
        """Everything is proved; the transaction itself is the memory's."""

    async def _roll_back(self, _accepted: Accepted) -> None:
        """Stop what was being proved and see that what was good runs."""
        good = self._memory.good.specs if self._memory.good else {}
        keep = {spec.instance_id for spec in good.values()}
        async with self._acting:
            observed = await self._hands.runtime.observe()
            for instance in observed.instances:
                if instance.id not in keep:
                    await self._hands.runtime.stop(instance.id)
            for spec in sorted(good.values(), key=lambda s: (s.startup_order, s.name)):
                if spec.running:
                    await self._hands.executor.execute(Start(spec))


def _same_proof(good: ModuleSpec | None, spec: ModuleSpec) -> bool:
    return (
        good is not None
        and good.instance_id == spec.instance_id
        and good.running
        and good.golden == spec.golden
    )
