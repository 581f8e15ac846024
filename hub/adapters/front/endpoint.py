"""The hub's own MQTT endpoint: listens with TLS and plays the `DeviceBus` port.

Owns the listening socket and the map from device to session; revocation and takeover happen here.
Must not know topics or packets.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from typing import TYPE_CHECKING, Any

import structlog

from hub.adapters.front.connection import Connection
from hub.adapters.front.limits import FrontLimits
from hub.adapters.front.native import NativeDialect
from hub.adapters.front.session import Session
from hub.adapters.front.tls import peer_of, shrink_tls_buffers
from protocol.errors import Code, FleetError, InvalidError, UnavailableError
from protocol.mqtt import Reason

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from hub.adapters.front.dialect import Dialect
    from hub.core.ports import BusHandler
    from protocol.ids import DeviceId
    from protocol.topics import DownKind

log = structlog.get_logger()

_BACKLOG = 4_096
_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_RESOURCE_PAUSE_SECONDS = 0.5
_DEFAULT_LIMITS = FrontLimits()


class MqttFront:
    """`DeviceBus` over MQTT 3.1.1 and 5 with mutual TLS; sessions end with their connection."""

    handler: BusHandler

    def __init__(
        self,
        *,
        tls: ssl.SSLContext,
        host: str,
        port: int,
        limits: FrontLimits = _DEFAULT_LIMITS,
        dialects: Sequence[Dialect] = (NativeDialect(),),
    ) -> None:
        """Prepare to listen on `host`:`port` (0: any free port); nothing is opened yet.

        `tls` decides which client certificates count; a client without one is refused by the
        native dialect.
        """
        self._tls = tls
        self._host = host
        self._wanted_port = port
        self.limits = limits
        self.dialects = dialects
        self.is_stopping = False
        self._listener: socket.socket | None = None
        self._acceptor: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._handshakes = asyncio.Semaphore(limits.max_handshakes)
        self._open = 0
        self._all_closed = asyncio.Event()
        self._connections: set[Connection] = set()
        self._admitting: set[Session] = set()
        self._sessions: dict[DeviceId, Session] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._shaking: set[asyncio.Task[None]] = set()

    # ---- the port --------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The port listened on; after `start`."""
        assert self._listener is not None  # noqa: S101 - asking earlier is a bug
        return int(self._listener.getsockname()[1])

    async def start(self, handler: BusHandler) -> None:
        """Listen and serve.

        Raises:
            UnavailableError: `port-in-use`.
            InvalidError: `settings-invalid`, when the host is none of this machine's.
        """
        shrink_tls_buffers()
        self.handler = handler
        self._listener = _listen(self._host, self._wanted_port)
        self._acceptor = asyncio.get_running_loop().create_task(self._accept(self._listener))
        log.info("mqtt.front_started", host=self._host, port=self.port)

    async def stop(self) -> None:
        """Accept nobody, answer what is in flight, say goodbye, close everything."""
        if self._listener is None or self.is_stopping:
            return
        self.is_stopping = True
        self._stopping.set()
        if self._acceptor is not None:
            self._acceptor.cancel()
            await asyncio.wait({self._acceptor})
        self._listener.close()
        await _settle(self._shaking, 0)
        sessions = list(self._sessions.values())
        in_flight = [task for session in sessions for task in session.drain()]
        await _settle(in_flight, self.limits.drain_seconds)
        for session in (*sessions, *self._admitting):
            session.close(Reason.SERVER_SHUTTING_DOWN)
        for connection in list(self._connections):
            connection.close()
        await _settle(self._tasks, self.limits.drain_seconds)
        await self._wait_for_connections()
        log.info("mqtt.front_stopped")

    async def send(self, device: DeviceId, kind: DownKind, body: bytes) -> bool:
        """Hand a message to the device's session; False when there is none."""
        session = self._sessions.get(device)
        return session is not None and session.send(kind, body)

    async def kick(self, device: DeviceId) -> None:
        """Close the device's session, and any that is being admitted, at once."""
        candidates = [session for session in self._admitting if session.device == device]
        if device in self._sessions:
            candidates.append(self._sessions[device])
        for session in candidates:
            session.close(Reason.ADMINISTRATIVE_ACTION)

    def connected_devices(self) -> frozenset[DeviceId]:
        """Return the devices with a live session."""
        return frozenset(d for d, session in self._sessions.items() if session.is_live)

    # ---- for sessions ----------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run work that `stop` waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def admitting(self, session: Session) -> None:
        """Note a session that is being decided about."""
        self._admitting.add(session)

    def admitted(self, session: Session) -> Session | None:
        """Make it the session of its device and return the one it replaces."""
        self._admitting.discard(session)
        older = self._sessions.get(session.device)
        self._sessions[session.device] = session
        return older

    def ended(self, session: Session) -> None:
        """Forget a session."""
        self._admitting.discard(session)
        if self._sessions.get(session.device) is session:
            del self._sessions[session.device]

    def gone(self, connection: Connection) -> None:
        """Forget a closed connection."""
        self._connections.discard(connection)
        self._closed_one()

    # ---- connections -----------------------------------------------------------------------------

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._handshakes.acquire()
            try:
                connected, _ = await loop.sock_accept(listener)
            except OSError as error:
                self._handshakes.release()
                await self._pause_after(error)
                continue
            if self._open >= self.limits.max_connections:
                self._handshakes.release()
                connected.close()
                log.warning("mqtt.connections_exhausted", limit=self.limits.max_connections)
                continue
            self._open += 1
            self._all_closed.clear()
            task = loop.create_task(self._shake_hands(connected))
            self._shaking.add(task)
            task.add_done_callback(self._shaking.discard)

    async def _pause_after(self, error: OSError) -> None:
        if error.errno not in _OUT_OF_RESOURCES:
            return
        log.error("mqtt.accept_failed", error=str(error))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), _RESOURCE_PAUSE_SECONDS)

    async def _shake_hands(self, connected: socket.socket) -> None:
        loop, limits = asyncio.get_running_loop(), self.limits
        connection = Connection(limits, self._made)
        try:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            await loop.connect_accepted_socket(
                lambda: connection,
                connected,
                ssl=self._tls,
                ssl_handshake_timeout=limits.handshake_seconds,
                ssl_shutdown_timeout=limits.close_seconds,
            )
        except (OSError, ssl.SSLError) as error:
            log.info("mqtt.handshake_failed", error=str(error) or type(error).__name__)
        finally:
            self._handshakes.release()
            if not connection.is_made:
                connected.close()
                self._closed_one()

    def _made(self, connection: Connection) -> Session:
        self._connections.add(connection)
        return Session(self, connection, peer_of(connection.transport))

    def _closed_one(self) -> None:
        self._open -= 1
        if not self._open:
            self._all_closed.set()

    async def _wait_for_connections(self) -> None:
        if self._open:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_closed.wait(), 2 * self.limits.close_seconds)


async def _settle(
    tasks: Sequence[asyncio.Task[None]] | set[asyncio.Task[None]], limit: float
) -> None:
    """Wait for tasks; cancel those that take longer than `limit` seconds."""
    if not tasks:
        return
    _, pending = await asyncio.wait(tuple(tasks), timeout=limit)
    for task in pending:
        task.cancel()
    if pending:
        await asyncio.wait(pending)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise _listen_error(host, port, error) from error
    listener.settimeout(0)
    return listener


def _listen_error(host: str, port: int, error: OSError) -> FleetError:
    if error.errno == errno.EADDRINUSE:
        return UnavailableError(
            f"port {port} on {host!r} is in use",
            code=Code.PORT_IN_USE,
            hint=f"stop the other program (`ss -ltnp 'sport = :{port}'`) or choose another port",
        )
    return InvalidError(
        f"cannot listen on '{host}:{port}': {error.strerror or error}",
        code=Code.SETTINGS_INVALID,
        hint="use an address of this machine, and a port this user may open",
    )
