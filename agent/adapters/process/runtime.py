"""Runs modules as supervised processes, where no container engine is.

Decides how an instance is started, found again, and ended. The modules are sessions of their own
that outlive the agent; nothing about them is known only in memory. It supervises nothing by itself:
restarts are the planner's matter. It is no sandbox: a module has the rights of the agent's user.
"""

from __future__ import annotations

import asyncio
import resource
import secrets
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog

from agent.adapters.images.documents import ImageConfig
from agent.adapters.images.puller import ImagePuller, pinned_digest
from agent.adapters.images.store import boot_id
from agent.adapters.process.command import (
    MODULE_HOST,
    Command,
    HostSettings,
    Place,
    build_command,
    check_interpreter,
)
from agent.adapters.process.identity import (
    find_session_leader,
    identify,
    is_running,
    kill_session,
    reap,
    terminate,
)
from agent.adapters.process.log import bound_log, read_tail
from agent.adapters.process.options import RunOptions, read_options
from agent.adapters.process.records import InstanceFolders, InstanceRecord
from agent.core.plan import Instance, InstanceState, ModuleSpec, Observed
from agent.core.ports import Clock, Pulled
from protocol.errors import Code, DeviceError
from protocol.ids import ImageRef, ModuleName
from protocol.messages import Credential

_NONCE = "RIMWARD_INSTANCE"
_POLL_SECONDS = 0.02
_KILL_SECONDS = 5.0
log = structlog.get_logger()


class ProcessRuntime:
    """Plays `agent.core.ports.Runtime` with processes.

    Args:
        root: Folder for instances; made if missing.
        puller: Brings images to its store.
        clock: Waits while a module ends.
        host: What of the host modules may see.
    """

    def __init__(
        self, root: Path, puller: ImagePuller, clock: Clock, *, host: HostSettings
    ) -> None:
        self._folders = InstanceFolders(root)
        self._puller = puller
        self._clock = clock
        self._host = host
        self._boot_id = boot_id()
        self._starting = asyncio.Lock()
        self._recovered = False

    @property
    def name(self) -> str:
        """Name of the runtime."""
        return "process"

    async def pull(self, image: ImageRef, credential: Credential) -> Pulled:
        """Bring an image to the device; see the port."""
        if pinned_digest(image) in self._puller.store.images():
            return Pulled(0)
        resolved = await self._puller.resolve(image, credential)
        await self._puller.complete(resolved, self.check)
        return Pulled(resolved.source.meter.bytes_received)

    def check(self, config: ImageConfig) -> None:
        """Refuse an image this host cannot run.

        Raises:
            DeviceError: `interpreter-missing`.
        """
        check_interpreter(config, self._host)

    async def observe(self) -> Observed:
        """Return what is there; see the port."""
        async with self._starting:
            instances = await asyncio.to_thread(self._look)
        return Observed(self._puller.store.images(), instances)

    async def start(self, spec: ModuleSpec) -> Instance:
        """Start an instance; see the port."""
        async with self._starting:
            record = await asyncio.to_thread(self._start, spec)
        return _instance(record)

    async def stop(self, instance_id: str, *, grace_seconds: float = 10.0) -> None:
        """Stop and remove an instance; see the port."""
        async with self._starting:
            await asyncio.to_thread(self._recover)
        record = await asyncio.to_thread(self._folders.get, instance_id)
        if record is None:
            return
        if record.process is not None:
            terminate(record.process, self._boot_id)
            await self._ended(record, grace_seconds)
            await asyncio.to_thread(kill_session, record.process, self._boot_id)
            await self._ended(record, _KILL_SECONDS)
            reap(record.process, self._boot_id)
        async with self._starting:  # else someone who looks now would write the record again
            await asyncio.to_thread(self._folders.remove, instance_id)
        log.info("instance.stopped", instance=instance_id)

    async def logs(self, instance_id: str, *, tail: int = 100) -> str:
        """Return the last lines an instance wrote; see the port."""
        return await asyncio.to_thread(read_tail, self._folders.log(instance_id), tail)

    async def remove_images(self, keep: frozenset[str]) -> None:
        """Remove images; see the port."""
        async with self._starting:
            used = {record.image for record in await asyncio.to_thread(self._folders.all)}
            for digest in await self._puller.remove(keep | used):
                log.info("image.removed", image=digest)

    # ---- in threads -----------------------------------------------------------------------------

    def _start(self, spec: ModuleSpec) -> InstanceRecord:
        self._recover()
        old = self._folders.get(spec.instance_id)
        if old is not None:
            old = self._examine(old)
            if not old.exited:
                return old
            self._folders.remove(old.id)
        image = pinned_digest(spec.image)
        store = self._puller.store
        config, rootfs = store.config(image), store.rootfs(image)
        options = read_options(spec.create_options, spec.port)
        place = Place(rootfs, self._folders.home(spec.instance_id), self._port(options))
        command = build_command(config, options, spec.env, place, self._host)
        record = InstanceRecord(
            id=spec.instance_id,
            module=spec.name,
            fingerprint=spec.fingerprint,
            image=image,
            nonce=secrets.token_hex(16),
            port=place.port,
            started_at=self._clock.now().timestamp(),
        )
        return self._spawn(record, command, options)

    def _spawn(
        self, record: InstanceRecord, command: Command, options: RunOptions
    ) -> InstanceRecord:
        self._folders.put(record)
        try:
            pid = _spawn(command, record.nonce, self._folders.log(record.id))
        except (OSError, ValueError) as error:
            self._folders.remove(record.id)
            raise DeviceError(
                f"module {record.module!r} did not start: {error}",
                code=Code.MODULE_START_FAILED,
                hint="check the entrypoint of its image and the create options",
            ) from error
        if options.memory_bytes:
            limit = (options.memory_bytes, options.memory_bytes)
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_DATA, limit)
        if options.ignored:
            log.warning("instance.options_ignored", instance=record.id, options=options.ignored)
        started = msgspec.structs.replace(record, process=identify(pid, self._boot_id))
        self._folders.put(started)
        log.info("instance.started", instance=record.id, pid=pid, port=record.port)
        return started

    def _look(self) -> tuple[Instance, ...]:
        self._recover()
        return tuple(_instance(self._examine(record)) for record in self._folders.all())

    def _examine(self, record: InstanceRecord) -> InstanceRecord:
        """Return the record as it is now; note an end, and end what a dead leader left behind."""
        bound_log(self._folders.log(record.id))
        if record.exited or record.process is None or is_running(record.process, self._boot_id):
            return record
        kill_session(record.process, self._boot_id)
        code = reap(record.process, self._boot_id)
        ended = msgspec.structs.replace(record, exited=True, exit_code=code)
        self._folders.put(ended)
        log.warning("instance.exited", instance=record.id, exit_code=code)
        return ended

    def _recover(self) -> None:
        """Once: find processes of an agent that died between starting them and noting it."""
        if self._recovered:
            return
        for record in self._folders.all():
            if record.process is not None or record.exited:
                continue
            pid = find_session_leader(_NONCE, record.nonce)
            process = identify(pid, self._boot_id) if pid is not None else None
            if process is None:
                self._folders.remove(record.id)
            else:
                self._folders.put(msgspec.structs.replace(record, process=process))
        self._recovered = True

    def _port(self, options: RunOptions) -> int:
        if options.host_port:
            return options.host_port
        taken = {record.port for record in self._folders.all()}
        while (port := _free_port()) in taken:
            pass
        return port

    async def _ended(self, record: InstanceRecord, seconds: float) -> None:
        if record.process is None:
            return
        deadline = self._clock.monotonic() + seconds
        while is_running(record.process, self._boot_id) and self._clock.monotonic() < deadline:
            await self._clock.sleep(_POLL_SECONDS)


def _spawn(command: Command, nonce: str, log_path: Path) -> int:
    with log_path.open("ab") as output:
        process = subprocess.Popen(
            command.arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=command.folder,
            env=command.environment | {_NONCE: nonce},
            start_new_session=True,
        )
    # From here on the process is known by its identity on disk, so this object must neither reap
    # it nor complain that it still runs.
    process.returncode = 0
    return process.pid


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((MODULE_HOST, 0))
        return int(probe.getsockname()[1])


def _instance(record: InstanceRecord) -> Instance:
    state = InstanceState.EXITED if record.exited else InstanceState.RUNNING
    return Instance(
        id=record.id,
        module=ModuleName(record.module),
        fingerprint=record.fingerprint,
        state=state,
        image=record.image,
        endpoint=None if record.exited else f"http://{MODULE_HOST}:{record.port}",
        exit_code=record.exit_code,
        started_at=record.started_at,
    )
