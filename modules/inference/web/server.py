"""Listens and serves HTTP in a thread of its own, and ends the process in order.

granian's embedded server is used because it needs one process: the multi-process default keeps a
supervisor beside the worker, which on a device costs its memory twice.
"""

import asyncio
import errno
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

from granian import net
from granian.constants import HTTPModes
from granian.server.embed import Server

from ..errors import StartupCode, StartupError
from ..settings import Settings
from .routes import Routes

log = logging.getLogger("rimward.inference")

BACKLOG = 128
CONNECTIONS = 256
FLUSH_SECONDS = 0.5
LEAVE_SECONDS = 1.0
INTERNAL_FAILURE = 70


def listen(settings: Settings) -> socket.socket:
    """Return the bound socket, or raise StartupError: port in use, address unusable."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server(
            (settings.host, settings.port), family=family, backlog=BACKLOG
        )
    except OSError as error:
        place = f"'{settings.host}' port {settings.port}"
        if error.errno == errno.EADDRINUSE:
            raise StartupError(
                StartupCode.PORT_IN_USE,
                f"{place} is in use by another process",
                hint="stop that process, or set `RIMWARD_MODULE_PORT` to a free port",
            ) from error
        raise StartupError(
            StartupCode.ADDRESS_UNUSABLE,
            f"cannot listen on {place}: {_reason(error)}",
            hint="set `RIMWARD_MODULE_HOST` to an address of this machine, such as `127.0.0.1`",
        ) from error
    listener.settimeout(0)
    return listener


def _reason(error: OSError) -> str:
    # create_server() adds the address to the system's words; the sentence has it already.
    if isinstance(error, socket.gaierror) or error.errno is None:
        return str(error.strerror)
    return os.strerror(error.errno)


def watch_signals() -> socket.socket:
    """Send the numbers of arriving signals to the returned socket. In the main thread only.

    The bytes are written even while the main thread is inside native code, which is what lets
    the HTTP thread end the server then.
    """
    receiver, sender = socket.socketpair()
    receiver.settimeout(0)
    sender.settimeout(0)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)
    signal.set_wakeup_fd(sender.detach(), warn_on_full_buffer=False)
    return receiver


class HttpThread:
    """Serves `routes` on `listener` until SIGTERM or SIGINT, then calls `on_stopped`."""

    def __init__(
        self,
        routes: Routes,
        listener: socket.socket,
        signals: socket.socket,
        on_stopped: Callable[[], None],
        *,
        drain_ms: int,
    ) -> None:
        self._routes = routes
        self._listener = listener
        self._signals = signals
        self._on_stopped = on_stopped
        self._drain_seconds = drain_ms / 1000

    def start(self) -> None:
        """Serve from now on, beside the calling thread."""
        threading.Thread(target=self._run, name="http", daemon=True).start()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException:  # without HTTP the process is of no use: it must end, and say why
            log.exception("the HTTP server failed")
            os._exit(INTERNAL_FAILURE)

    async def _serve(self) -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._signals, self._on_signal, stop)
        server = _embedded_server(self._routes, self._listener)
        serving = asyncio.create_task(server.serve())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            serving.result()
            raise RuntimeError("granian stopped by itself")
        self._routes.stop()
        server.stop()  # type: ignore[no-untyped-call]  # granian leaves it unannotated
        await self._drain()
        await asyncio.wait({serving}, timeout=FLUSH_SECONDS)
        self._on_stopped()
        await asyncio.sleep(LEAVE_SECONDS)
        # The main thread has not left by now, so it is in native code that does not return.
        os._exit(0)

    def _on_signal(self, stop: asyncio.Event) -> None:
        if {signal.SIGTERM, signal.SIGINT} & set(self._signals.recv(4096)):
            stop.set()

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._drain_seconds
        while self._routes.active and loop.time() < end:  # noqa: ASYNC110 - once, at the end
            await asyncio.sleep(0.01)
        if self._routes.active:
            log.error("stopped with %d requests unanswered", self._routes.active)


class _BoundServer(Server):
    """Serves a given socket.

    granian binds with SO_REUSEPORT, so that two servers would share a port without a word.
    """

    def __init__(self, target: object, listener: socket.socket, **options: Any) -> None:
        super().__init__(target, **options)
        self._listener = listener

    def _init_shared_socket(self) -> None:
        holder: Any = net.SocketHolder  # type: ignore[attr-defined]  # not in its stubs
        self._ssp = None
        self._shd = holder(self._listener.detach(), False, self.backlog)  # noqa: FBT003 - native


def _embedded_server(routes: Routes, listener: socket.socket) -> Server:
    """Return a server of one RSGI application; it takes the socket over when it serves."""
    return _BoundServer(
        routes,
        listener,
        http=HTTPModes.http1,
        websockets=False,
        log_enabled=False,
        backpressure=CONNECTIONS,
        runtime_threads=1,
        runtime_blocking_threads=1,
    )
