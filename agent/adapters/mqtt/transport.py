"""Keeps a device connected to its hub over MQTT: when to try again, and what to tell the agent.

Messages are handed over once and forgotten when the connection ends; the agent's outbox remembers.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from concurrent.futures import Executor
from random import Random

import structlog

from agent.adapters.mqtt.link import Link, LinkOptions, open_client
from agent.adapters.trust import is_certificate_alert
from agent.core.backoff import Backoff
from agent.core.ports import Clock, TransportEvent
from protocol.errors import Code, DeniedError, FleetError, UnavailableError
from protocol.topics import UpKind

_log = structlog.get_logger()
_REFUSED = Backoff(first=30.0, ceiling=900.0)
_STEADY_SECONDS = 30.0  # a connection that lasted this long ends an outage


class PahoTransport:
    """See agent.core.ports.Transport. Connected and Disconnected alternate, Connected first.

    Args:
        options: Device, address, limits.
        make_context: Makes the TLS context for each connection, so that a renewed certificate is
            used from the next one on.
        clock: Waits between attempts.
        random: Spreads attempts of a fleet.
        backoff: Delays after a lost or failed connection.
        refused_backoff: Delays after the peer refused who we are, or we refused the peer.
        executor: Where blocking connects run; many agents in one process should share a wide one.
    """

    def __init__(
        self,
        options: LinkOptions,
        make_context: Callable[[], ssl.SSLContext],
        clock: Clock,
        random: Random,
        *,
        backoff: Backoff = Backoff(),  # noqa: B008 - immutable
        refused_backoff: Backoff = _REFUSED,
        executor: Executor | None = None,
    ) -> None:
        self._options = options
        self._make_context = make_context
        self._clock = clock
        self._random = random
        self._backoff = backoff
        self._refused_backoff = refused_backoff
        self._executor = executor
        self._link: Link | None = None
        self._failure: FleetError | None = None

    @property
    def failure(self) -> FleetError | None:
        """Why the last connection could not be made or ended; None while connected.

        `certificate-invalid` when one side refuses the other, else `broker-unreachable`.
        """
        return self._failure

    @property
    def packet_limit(self) -> int | None:
        """Bytes of the largest packet the peer takes; None while unknown. Larger are not taken."""
        return self._link.packet_limit if self._link is not None else None

    async def run(self, on_event: Callable[[TransportEvent], None]) -> None:
        """Stay connected, with back-off and jitter, until cancelled. Events come in order."""
        attempt = 0
        while True:
            began = self._clock.monotonic()
            failure = await self._connect_once(on_event)
            if self._clock.monotonic() - began > _STEADY_SECONDS:
                attempt = 0
            refused = failure.code is not Code.BROKER_UNREACHABLE
            backoff = self._refused_backoff if refused else self._backoff
            delay = backoff.delay(attempt, self._random)
            attempt += 1
            self._failure = failure
            _log.info(
                "transport.disconnected",
                device=self._options.device,
                code=failure.code,
                reason=str(failure),
                retry_seconds=round(delay, 1),
            )
            await self._clock.sleep(delay)

    def publish(self, kind: UpKind, body: bytes) -> bool:
        """Hand a message to the transport; False when it is not connected or congested."""
        return self._link is not None and self._link.publish(kind, body)

    def reconnect(self) -> None:
        """End the present connection, so that the next one shows a renewed certificate."""
        if self._link is not None:
            self._link.close()

    async def _connect_once(self, on_event: Callable[[TransportEvent], None]) -> FleetError:
        """Connect, deliver events until the connection ends, and return why it did."""
        try:
            # A result that nobody waits for any more closes its socket when it is dropped.
            client = await asyncio.get_running_loop().run_in_executor(
                self._executor, lambda: open_client(self._options, self._make_context())
            )
        except FleetError as error:
            return error
        except (OSError, UnicodeError) as error:  # UnicodeError: a host that is no name
            return self._failed(str(error), refused=_is_refusal(error))
        link = Link(client, self._options)
        try:
            await self._deliver(link, on_event)
        finally:
            self._link = None
            link.close()
        return self._failed(link.reason or "", refused=link.refused)

    async def _deliver(self, link: Link, on_event: Callable[[TransportEvent], None]) -> None:
        try:
            async with asyncio.timeout(self._options.connect_seconds):
                events = await link.next_events()
        except TimeoutError:
            link.end("the peer did not answer in time")
            return
        self._link = link
        while events:
            self._failure = None
            for event in events:
                on_event(event)
            events = await link.next_events()

    def _failed(self, reason: str, *, refused: bool) -> FleetError:
        endpoint = self._options.endpoint
        where = f"{endpoint.host}:{endpoint.port}"
        if refused:
            return DeniedError(
                f"this device and {where!r} do not accept each other: {reason}",
                code=Code.CERTIFICATE_INVALID,
                hint="check the device's clock, and with `rimward device show` at the hub whether "
                "the device is retired; a new claim (`rimward device invite`) enrols it again",
            )
        return UnavailableError(
            f"no connection to {where!r}: {reason}",
            code=Code.BROKER_UNREACHABLE,
            hint="check that the hub runs and that this device reaches its address and port",
        )


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, ssl.SSLCertVerificationError) or is_certificate_alert(str(error))
