"""Renews the device's certificate at half its life, with a new key each time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from agent.core.ports import Clock
from protocol.errors import FleetError

_LOOK_SECONDS = 600.0
log = structlog.get_logger()


class Renewer:
    """Looks at the certificate now and then.

    Args:
        is_due: Tells whether it is time.
        renew: Gets and stores a new certificate.
        clock: Waits.
    """

    def __init__(
        self, is_due: Callable[[], bool], renew: Callable[[], Awaitable[None]], clock: Clock
    ) -> None:
        self._is_due = is_due
        self._renew = renew
        self._clock = clock

    async def run(self) -> None:
        """Renew for ever; a failure is tried again at the next look."""
        while True:
            if self._is_due():
                try:
                    await self._renew()
                except FleetError as error:
                    log.warning("certificate.not_renewed", code=error.code, why=str(error))
                else:
                    log.info("certificate.renewed")
            await self._clock.sleep(_LOOK_SECONDS)
