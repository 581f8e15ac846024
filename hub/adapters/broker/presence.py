"""Which devices an external broker lets us reach, as far as their messages tell.

Per device, transitions reach the handler one after the other. Must not know topics or packets.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from hub.core.ports import BusHandler
    from protocol.ids import DeviceId


class Presence:
    """The devices heard of since their last goodbye."""

    def __init__(self, handler: BusHandler) -> None:
        self._handler = handler
        self._present: set[DeviceId] = set()
        self._running: dict[DeviceId, asyncio.Task[None]] = {}

    @property
    def devices(self) -> frozenset[DeviceId]:
        """The devices that can be reached."""
        return frozenset(self._present)

    async def arrive(self, device: DeviceId) -> None:
        """Return when the handler knows that the device is connected; raise what it raises."""
        if device not in self._present:
            self._present.add(device)
            await self._run(device, self._handler.connected)
        elif device in self._running:
            await asyncio.wait({self._running[device]})

    async def leave(self, device: DeviceId) -> None:
        """Return when the handler knows that the device is gone; raise what it raises."""
        if device in self._present:
            self._present.discard(device)
            await self._run(device, self._handler.disconnected)

    async def _run(
        self, device: DeviceId, tell: Callable[[DeviceId], Coroutine[Any, Any, None]]
    ) -> None:
        before = self._running.get(device)

        async def after_the_one_before() -> None:
            if before is not None:
                await asyncio.wait({before})
            await tell(device)

        task = asyncio.get_running_loop().create_task(after_the_one_before())
        self._running[device] = task
        try:
            await asyncio.shield(task)
        finally:
            if self._running.get(device) is task:
                del self._running[device]
