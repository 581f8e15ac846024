"""The agent's composition root: the only module that knows every adapter."""

from __future__ import annotations

import asyncio
import fcntl
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from random import Random

from agent.adapters import identity as identities
from agent.adapters.audit import Ledger, StatusFile
from agent.adapters.clock import SystemClock
from agent.adapters.hub_api import HubApiClient, open_pinned
from agent.adapters.identity import ContextFactory
from agent.adapters.images.client import RegistryClient
from agent.adapters.images.documents import host_architecture
from agent.adapters.images.puller import ImagePuller
from agent.adapters.images.store import ImageStore
from agent.adapters.mqtt.link import LinkOptions
from agent.adapters.mqtt.transport import PahoTransport
from agent.adapters.prober import HttpProber
from agent.adapters.process.command import HostSettings
from agent.adapters.process.runtime import ProcessRuntime
from agent.adapters.sqlite_store import SqliteStore
from agent.adapters.trust import verify_ed25519
from agent.core.backoff import Backoff
from agent.core.desired import Trust
from agent.core.ports import Clock, Identity, Runtime
from agent.core.renewal import renewal_due
from agent.core.restart import Restarts
from agent.courier import Courier
from agent.executor import Executor
from agent.loop import Agent, LoopSettings, Organs, Rims
from agent.memory import Memory
from agent.renewer import Renewer
from agent.reporter import Reporter
from agent.settings import VERSION, Settings
from agent.updater import Hands, Updater
from agent.verifier import Verifier
from protocol.errors import Code, ConflictError, FleetError, UnavailableError
from protocol.messages import MqttEndpoint

_STORE_SECONDS = 5.0  # between two looks whether the store still answers


@dataclass(frozen=True, slots=True)
class Enrolled:
    """An enrolled device: who it is, and how it reaches its hub."""

    identity: Identity
    make_context: ContextFactory

    @classmethod
    def load(cls, settings: Settings) -> Enrolled:
        """Read the identity below the home folder, or raise FleetError (`not-enrolled`, ...)."""
        identity, make_context = identities.load_identity(settings.home)
        url = settings.hub_url or identity.hub_url
        return cls(Identity(identity.device, url, identity.enrolled), make_context)


def hold(home: Path) -> int:
    """Take the home folder for this process; the lock goes with the returned descriptor.

    Raises:
        ConflictError: `state-conflict`, when another agent runs on it.
        UnavailableError: `disk-full`, when it cannot be written.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(home / "agent.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise UnavailableError(
            f"{str(home)!r} cannot be written: {error.strerror}",
            code=Code.DISK_FULL,
            hint="free some space, and make the folder writable for the agent's user",
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ConflictError(
            f"another agent runs in {str(home)!r}",
            code=Code.STATE_CONFLICT,
            hint="stop it first, or choose another folder with --home",
        ) from error
    return descriptor


def is_running(home: Path) -> bool:
    """Tell whether an agent runs on a home folder."""
    try:
        os.close(hold(home))
    except ConflictError:
        return True
    except UnavailableError:
        return False
    return False


def registry_client(enrolled: Enrolled, clock: Clock) -> RegistryClient:
    """Return the client that pulls images; the hub's own registry is reached as the hub is."""
    authority = enrolled.identity.enrolled.registry
    bases = {authority: enrolled.identity.hub_url} if authority else {}
    trust = ssl.create_default_context()
    trust.load_verify_locations(cadata=enrolled.identity.enrolled.ca)
    return RegistryClient(clock, ssl_context=trust, authority_map=bases)


def image_puller(settings: Settings, enrolled: Enrolled, clock: Clock) -> ImagePuller:
    """Return what brings images below the home folder."""
    store = ImageStore(settings.home / "images")
    client = registry_client(enrolled, clock)
    return ImagePuller(client, store, architecture=host_architecture())


def process_runtime(settings: Settings, puller: ImagePuller, clock: Clock) -> ProcessRuntime:
    """Return the runtime that needs no container engine."""
    host = HostSettings(path=settings.path)
    return ProcessRuntime(settings.home / "instances", puller, clock, host=host)


async def choose_runtime(settings: Settings, enrolled: Enrolled, clock: Clock) -> Runtime:
    """Return the runtime that is asked for; `auto` is docker where an engine answers.

    Raises:
        FleetError: `runtime-unavailable`, when docker is asked for and does not answer.
    """
    if settings.runtime != "process":
        from agent.adapters.docker.engine import DockerEngine  # noqa: PLC0415 - 15 MB, if used
        from agent.adapters.docker.runtime import DockerRuntime  # noqa: PLC0415

        runtime = DockerRuntime(
            DockerEngine(settings.docker),
            enrolled.identity.device,
            settings.home,
            ca_pem=enrolled.identity.enrolled.ca if enrolled.identity.enrolled.registry else "",
        )
        try:
            await runtime.observe()
        except FleetError:
            if settings.runtime == "docker":
                raise
        else:
            return runtime
    return process_runtime(settings, image_puller(settings, enrolled, clock), clock)


def assemble(
    settings: Settings,
    enrolled: Enrolled,
    runtime: Runtime,
    clock: Clock,
    random: Random,
) -> Agent:
    """Return the agent of one device; nothing runs yet.

    Raises:
        FleetError: `database-newer`, `database-unavailable`, `disk-full`.
    """
    identity = enrolled.identity
    store = SqliteStore(settings.home / "agent.db", clock)
    endpoint = MqttEndpoint(*settings.mqtt) if settings.mqtt else identity.enrolled.mqtt
    transport = PahoTransport(
        LinkOptions(identity.device, endpoint), enrolled.make_context, clock, random
    )
    memory = Memory(store, Trust(identity.device, identity.enrolled.director_keys, verify_ed25519))
    api = HubApiClient(identity.hub_url, enrolled.make_context, clock)
    prober = HttpProber()
    executor = Executor(runtime, api, memory.count_bytes)
    hands = Hands(runtime, executor, Verifier(runtime, prober, clock), clock, Backoff(), random)
    acting, wake = asyncio.Lock(), asyncio.Event()
    ledger = Ledger(settings.ledger) if settings.ledger else None
    courier = Courier(store, transport, clock, ledger.acknowledged if ledger else None)
    organs = Organs(
        memory=memory,
        updater=Updater(memory, hands, acting, wake.set),
        executor=executor,
        courier=courier,
        reporter=Reporter(memory, transport, clock),
        restarts=Restarts(settings.restart_seconds),
        acting=acting,
        wake=wake,
    )
    loop_settings = LoopSettings(
        version=VERSION,
        inputs=settings.home / "inputs",
        tick_seconds=settings.tick_seconds,
        on_report=StatusFile(settings.home / "status.json").write,
        background=(
            _renewer(settings, enrolled, api, clock).run,
            lambda: _keep_open(store, clock),
        ),
    )
    return Agent(Rims(runtime, transport, prober, store, clock), organs, loop_settings)


async def _keep_open(store: SqliteStore, clock: Clock) -> None:
    """Open the store anew after it failed, or raise FleetError while it cannot be opened."""
    while True:
        await clock.sleep(_STORE_SECONDS)
        try:
            store.get("")
        except FleetError:
            store.reopen()


def _renewer(settings: Settings, enrolled: Enrolled, api: HubApiClient, clock: Clock) -> Renewer:
    current = [enrolled.identity]

    def is_due() -> bool:
        validity = identities.certificate_validity(current[0].enrolled.certificate)
        return renewal_due(*validity, clock.now())

    async def renew() -> None:
        current[0] = await identities.renew(settings.home, current[0], api)

    return Renewer(is_due, renew, clock)


async def run(settings: Settings) -> None:
    """Run the device of `settings.home` until cancelled, or raise FleetError."""
    enrolled, clock = Enrolled.load(settings), SystemClock()
    lock = hold(settings.home)
    try:
        runtime = await choose_runtime(settings, enrolled, clock)
        await assemble(settings, enrolled, runtime, clock, Random()).run()  # noqa: S311 - jitter
    finally:
        os.close(lock)


async def stop_modules(settings: Settings) -> None:
    """Stop the modules that outlived their agent, or raise FleetError.

    Modules go on running while the agent is away; this is for taking a device out of service.
    """
    enrolled, clock = Enrolled.load(settings), SystemClock()
    lock = hold(settings.home)
    try:
        runtime = await choose_runtime(settings, enrolled, clock)
        for instance in (await runtime.observe()).instances:
            await runtime.stop(instance.id)
    finally:
        os.close(lock)


async def enroll(settings: Settings, claim: str, profile: str) -> Identity:
    """Trade a claim for an identity below `settings.home`, or raise FleetError."""
    clock = SystemClock()
    return await identities.enroll(
        claim,
        settings.home,
        profile,
        agent_version=VERSION,
        open_hub=lambda parsed: open_pinned(parsed, clock),
    )
