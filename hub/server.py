"""A running hub: opens the listeners, drives the rollouts, stops in order."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import threading
from collections.abc import Callable, Generator, Iterable

import structlog
import uvicorn
import uvloop

from hub.adapters.clock import SystemClock
from hub.adapters.data_folder import held
from hub.adapters.front.endpoint import MqttFront
from hub.bootstrap import Hub, Signals, build, write_admin
from hub.http_protocol import HubHttpProtocol
from hub.services.devices import Addresses
from hub.settings import Settings
from protocol.errors import Code, FleetError, UnavailableError
from protocol.ids import DeviceId
from protocol.messages import MqttEndpoint

_DRAIN_SECONDS = 10
_BUS_SECONDS = 20.0
_THREADS_SECONDS = 5.0
log = structlog.get_logger()


def serve(settings: Settings) -> None:
    """Run a hub until SIGINT or SIGTERM.

    Raises:
        FleetError: `port-in-use`, `database-...`, `broker-unreachable`, `settings-invalid`;
            `state-conflict` when another hub runs on the same folder.
    """
    status = [1]
    # Threads cannot be interrupted, and one may wait for a database that hangs.
    end = threading.Timer(_THREADS_SECONDS, lambda: _leave(status[0]))
    end.daemon = True
    try:
        with (
            held(settings.data),
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            try:
                runner.run(_Server(settings).run())
                status[0] = 0
            finally:
                end.start()
    except BaseExceptionGroup as group:
        raise _first(group.subgroup(FleetError) or group) from group
    finally:
        end.cancel()


def _leave(status: int) -> None:
    """End the process: everything was stopped in order, only threads are left."""
    log.warning("hub.threads_left", after_seconds=_THREADS_SECONDS)
    os._exit(status)


def _first(error: BaseException) -> BaseException:
    """Return one of the errors that ended the parts of the hub at the same time."""
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


class _Quiet(uvicorn.Server):
    """uvicorn without its own signal handling: the hub stops its parts in order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class _Pending:
    """Devices something is to be done for, in order, each once: never more than there are."""

    def __init__(self) -> None:
        self._devices: dict[DeviceId, None] = {}
        self._any = asyncio.Event()

    def add(self, device: DeviceId) -> None:
        """Note a device."""
        self._devices[device] = None
        self._any.set()

    async def take(self) -> DeviceId:
        """Return the device that has waited longest; waits for one."""
        while not self._devices:
            self._any.clear()
            await self._any.wait()
        device = next(iter(self._devices))
        del self._devices[device]
        return device


class _Server:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._clock = SystemClock()
        self._news = _Pending()
        self._revoked = _Pending()
        self._stop = asyncio.Event()
        self._mqtt_port = 0

    async def run(self) -> None:
        """Open everything, run, close everything."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        listener = _listen(self._settings.host, self._settings.https_port)
        port = listener.getsockname()[1]
        address = self._settings.address
        authority_name = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        signals = Signals(
            announce=lambda devices: _call(loop, self._announce, list(devices)),
            revoked=lambda device: _call(loop, self._revoked.add, device),
            addresses=lambda: self._addresses(hub, authority_name),
        )
        with contextlib.closing(listener):
            hub = await asyncio.to_thread(build, self._settings, signals, authority_name)
            with contextlib.closing(hub.store):
                await asyncio.to_thread(_start_afresh, hub)
                await hub.bus.start(hub.sessions)
                try:
                    await self._run(hub, listener, f"https://{authority_name}")
                finally:
                    await _stop_bus(hub)

    def _announce(self, devices: Iterable[DeviceId]) -> None:
        for device in devices:
            self._news.add(device)

    def _addresses(self, hub: Hub, authority_name: str) -> Addresses:
        broker = self._settings.broker
        mqtt = (
            MqttEndpoint(*broker)
            if broker
            else MqttEndpoint(self._settings.address, self._mqtt_port)
        )
        return Addresses(
            url=f"https://{authority_name}",
            ca_fingerprint=hub.authority.fingerprint,
            mqtt=mqtt,
            registry="" if self._settings.registry else authority_name,
        )

    async def _run(self, hub: Hub, listener: socket.socket, url: str) -> None:
        if isinstance(hub.bus, MqttFront):
            self._mqtt_port = hub.bus.port
        web = _Quiet(_web_config(hub))
        # The listener is open already: whoever reads the file and connects waits a moment at most.
        admin = await asyncio.to_thread(write_admin, self._settings, hub, url)
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(hub.ingest.run()),
                group.create_task(self._push(hub)),
                group.create_task(self._cut_off(hub)),
                *(
                    group.create_task(self._every(seconds, name, work))
                    for name, (seconds, work) in hub.chores.items()
                ),
            ]
            serving = group.create_task(web.serve([listener]))
            log.info("hub.started", url=url, admin=str(admin), **self._settings.redacted())
            stopping = asyncio.ensure_future(self._stop.wait())
            await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
            log.info("hub.stopping")
            web.should_exit = True
            await _stop_bus(hub)  # before the ingest: what is in flight is still committed
            await asyncio.wait([serving])
            for task in (*background, stopping):
                task.cancel()

    async def _push(self, hub: Hub) -> None:
        """Send devices their new desired state; those that are away ask when they are back."""
        while True:
            device = await self._news.take()
            try:
                await hub.sessions.push_desired(device)
            except FleetError as error:
                log.warning("desired.not_sent", device=device, code=error.code, why=str(error))

    async def _cut_off(self, hub: Hub) -> None:
        while True:
            device = await self._revoked.take()
            hub.sessions.forget(device)
            await hub.bus.kick(device)

    async def _every(self, seconds: float, name: str, work: Callable[[], object]) -> None:
        """Do what the passing of time alone makes due, for ever."""
        while True:
            await self._clock.sleep(seconds)
            try:
                await asyncio.to_thread(work)
            except FleetError as error:
                log.warning("chore.failed", chore=name, code=error.code, why=str(error))
            except OSError as error:  # a disk that fails must not end the hub for every device
                log.warning("chore.failed", chore=name, why=str(error))


def _call(loop: asyncio.AbstractEventLoop, function: object, argument: object) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(function, argument)  # type: ignore[arg-type]  # callers know it


async def _stop_bus(hub: Hub) -> None:
    """Stop the bus; a second time does nothing. It may wait for a database that is gone."""
    try:
        async with asyncio.timeout(_BUS_SECONDS):
            await hub.bus.stop()
    except TimeoutError:
        log.warning("hub.bus_left", after_seconds=_BUS_SECONDS)


def _start_afresh(hub: Hub) -> None:
    """Put right what a previous run could not: nobody is connected, no image is being built."""
    with hub.store.begin() as work:
        work.devices.disconnect_all()
        work.commit()
    hub.services.images.recover()
    hub.services.deployments.advance()


def _web_config(hub: Hub) -> uvicorn.Config:
    return uvicorn.Config(
        hub.app,
        http=HubHttpProtocol,
        ws="none",
        lifespan="off",
        ssl_context_factory=lambda _config, _default: hub.https,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise UnavailableError(
                f"port {port} on {host!r} is in use",
                code=Code.PORT_IN_USE,
                hint="stop the other program, or choose a port: `rimward hub up --https-port 9443`",
            ) from error
        raise UnavailableError(
            f"cannot listen on {host!r} port {port}: {error.strerror}",
            code=Code.SETTINGS_INVALID,
            hint="listen on an address of this machine: `rimward hub up --host 127.0.0.1`",
        ) from error
    return listener
