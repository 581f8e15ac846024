"""Performs what was planned: one exhaustive match from action to call."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

import structlog

from agent.core.plan import Action, Pull, Start, Stop
from agent.core.ports import HubApi, Runtime

log = structlog.get_logger()


class Executor:
    """Turns actions into calls of the runtime; pulls with a fresh credential each."""

    def __init__(self, runtime: Runtime, api: HubApi, count_bytes: Callable[[int], None]) -> None:
        self._runtime = runtime
        self._api = api
        self._count_bytes = count_bytes

    async def execute(self, action: Action) -> None:
        """Perform one action, or raise the FleetError of the runtime or the hub."""
        match action:
            case Pull(image):
                credential = await self._api.credential(image)
                pulled = await self._runtime.pull(image, credential)
                self._count_bytes(pulled.bytes_received)
                log.info("image.pulled", image=str(image), bytes=pulled.bytes_received)
            case Start(spec):
                instance = await self._runtime.start(spec)
                log.info("module.started", module=spec.name, instance=instance.id)
            case Stop(instance_id):
                await self._runtime.stop(instance_id)
                log.info("module.stopped", instance=instance_id)
            case _:
                assert_never(action)
