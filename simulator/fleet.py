"""N real agents in one process: everything of their own but the machine below them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from random import Random

from agent.adapters.clock import SystemClock
from agent.bootstrap import Enrolled, assemble, enroll, image_puller, process_runtime
from agent.settings import Settings
from protocol.errors import FleetError
from simulator.shared_runtime import SharedMachine, SharedRuntime

PROFILE = "simulated"
_AT_ONCE = 8


async def enroll_all(homes: Sequence[Path], claims: Sequence[str]) -> list[Settings]:
    """Enrol a device per claim, each in its own folder, a few at a time; raises FleetError."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(home: Path, claim: str) -> Settings:
        settings = Settings(home=home)
        async with gate:
            await enroll(settings, claim, PROFILE)
        return settings

    return list(await asyncio.gather(*map(one, homes, claims)))


async def run_all(devices: Sequence[Settings], shared: Path, seed: int) -> None:
    """Run devices until cancelled.

    Args:
        devices: Enrolled devices.
        shared: Folder of the machine they share: images and real processes.
        seed: Of the jitter of reconnects.
    """
    clock = SystemClock()
    loaded = [Enrolled.load(settings) for settings in devices]
    settings_of_all = Settings(home=shared)
    puller = image_puller(settings_of_all, loaded[0], clock)
    runtime = process_runtime(settings_of_all, puller, clock)
    machine = SharedMachine(runtime, puller, runtime.check)
    try:
        async with asyncio.TaskGroup() as group:
            for number, (settings, enrolled) in enumerate(zip(devices, loaded, strict=True)):
                own = SharedRuntime(enrolled.identity.device, machine)
                agent = assemble(settings, enrolled, own, clock, Random(seed + number))  # noqa: S311 - jitter
                group.create_task(agent.run())
    finally:
        await _stop_modules(machine)


async def _stop_modules(machine: SharedMachine) -> None:
    """End the real processes: a simulated fleet leaves nothing behind."""
    try:
        for instance in (await machine.runtime.observe()).instances:
            await machine.runtime.stop(instance.id, grace_seconds=2.0)
    except FleetError:
        return
