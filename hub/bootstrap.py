"""The only module that knows every adapter: small builders, one per subsystem."""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import uv
from fastapi import FastAPI

import device_profiles
import modules
import protocol
from hub.adapters.blobs import DiskBlobs, disk_errors
from hub.adapters.broker.bus import BrokerBus, BrokerSettings
from hub.adapters.broker.config import (
    MosquittoConfig,
    render_access,
    render_mosquitto,
)
from hub.adapters.clock import SystemClock
from hub.adapters.data_folder import unusable
from hub.adapters.debian.base import DebianBases
from hub.adapters.front.endpoint import MqttFront
from hub.adapters.packaging.builder import ImageBuilder
from hub.adapters.packaging.dependencies import Uv
from hub.adapters.packaging.pip_settings import uv_environment
from hub.adapters.pki import DiskAuthority, DiskDirector, write_private
from hub.adapters.profiles import YamlProfiles
from hub.adapters.registry.embedded import EmbeddedRegistry
from hub.adapters.registry.login import Login
from hub.adapters.registry.remote import RemoteRegistry, RemoteSettings
from hub.adapters.sql.store import open_store
from hub.adapters.worker import Worker
from hub.api.app import create_app
from hub.api.registry import registry_router
from hub.core.packaging import ImageRegistry
from hub.core.ports import DeviceBus, Store
from hub.core.registry_access import Access
from hub.services import Services
from hub.services.credentials import CredentialService
from hub.services.deployments import DeploymentService
from hub.services.devices import Addresses, DeviceService
from hub.services.images import ImageService
from hub.services.models import ModelService
from hub.services.operators import OperatorService
from hub.services.registry import Registry
from hub.services.registry_tokens import RegistryTokens
from hub.services.sessions import Conversation, Sessions
from hub.services.telemetry import TelemetryIngest, TelemetryService
from hub.services.uploads import UploadService
from hub.settings import VERSION, Settings, environment
from protocol.errors import DeniedError
from protocol.ids import DeviceId
from protocol.messages import Credential

HUB_USER = "rimward.hub"  # the dot: no device id can look like it


@dataclass(frozen=True, slots=True)
class Signals:
    """How services tell the running hub what to do next; called from any thread."""

    announce: Callable[[Iterable[DeviceId]], None]
    revoked: Callable[[DeviceId], None]
    addresses: Callable[[], Addresses]


@dataclass(frozen=True, slots=True)
class Hub:
    """A hub, ready to be started.

    `chores` are what the passing of time makes due: seconds between two times, and what to do.
    """

    services: Services
    app: FastAPI
    bus: DeviceBus
    sessions: Sessions
    ingest: TelemetryIngest
    store: Store
    authority: DiskAuthority
    https: ssl.SSLContext
    chores: dict[str, tuple[float, Callable[[], object]]]


def build(settings: Settings, signals: Signals, authority_name: str) -> Hub:
    """Return a hub whose listeners are not open yet.

    Args:
        settings: How it is set up.
        signals: How it is driven.
        authority_name: `host:port` of its HTTPS listener, as devices see it.

    Raises:
        FleetError: `database-...`, `settings-invalid`, `profile-invalid`, `disk-full`.
    """
    clock = SystemClock()
    store = open_store(settings.database_url, clock)
    blobs = DiskBlobs(settings.data / "blobs")
    keys = settings.data / "keys"
    authority, director = DiskAuthority(keys, clock), DiskDirector(keys)
    profiles = YamlProfiles(_folder(device_profiles))
    tokens = RegistryTokens(_secret(keys / "registry.key"), clock)
    registry = _registry(settings, authority_name, store, blobs)
    models = ModelService(store, blobs, clock)
    images = ImageService(
        store,
        clock,
        models,
        _builder(settings, blobs, clock),
        registry,
        Worker("image-builder").submit,
    )
    deployments = DeploymentService(store, clock, director, images, signals.announce)
    devices = DeviceService(
        store,
        clock,
        authority,
        director,
        profiles,
        signals.addresses,
        deployments.device_changed,
        signals.revoked,
    )
    operators = OperatorService(store, clock)
    telemetry = TelemetryService(store, clock)
    services = Services(
        authority=authority,
        profiles=profiles,
        operators=operators,
        uploads=UploadService(blobs),
        models=models,
        images=images,
        devices=devices,
        credentials=CredentialService(store, registry.authority, _minter(settings, tokens)),
        deployments=deployments,
        telemetry=telemetry,
    )
    ingest = TelemetryIngest(telemetry)
    bus = _bus(settings, authority)
    conversation = Conversation(store, clock, authority, deployments, telemetry, ingest)
    own_registry = Registry(store, blobs, clock)
    router = registry_router(own_registry, tokens, Accounts(operators))
    hosts = _hosts(settings)
    return Hub(
        services=services,
        app=create_app(services, VERSION, [router]),
        bus=bus,
        sessions=Sessions(conversation, bus),
        ingest=ingest,
        store=store,
        authority=authority,
        https=authority.server_context(hosts, require_client=False),
        chores={
            "rollouts": (1.0, deployments.tick),
            "uploads": (3600.0, own_registry.sweep),
            "certificates": (86400.0, authority.renew_servers),
        },
    )


def _folder(package: object) -> Path:
    return Path(str(package.__file__)).parent  # type: ignore[attr-defined]  # packages have one


def _hosts(settings: Settings) -> Sequence[str]:
    return list(dict.fromkeys([settings.address, settings.host, "localhost", "127.0.0.1"]))


def _secret(path: Path) -> bytes:
    if not path.exists():
        write_private(path, secrets.token_bytes(32))
    return path.read_bytes()


def _builder(settings: Settings, blobs: DiskBlobs, clock: SystemClock) -> ImageBuilder:
    cache = settings.cache / "packaging"
    return ImageBuilder(
        blobs=blobs,
        cache_dir=cache,
        modules_dir=_folder(modules),
        protocol_dir=_folder(protocol),
        uv=Uv(
            uv.find_uv_bin(),
            cache / "locks",
            environment=lru_cache(lambda: uv_environment(environment())),
        ),
        bases=DebianBases(cache),
        clock=clock,
    )


def _registry(
    settings: Settings, authority_name: str, store: Store, blobs: DiskBlobs
) -> ImageRegistry:
    external = settings.registry
    if external is None:
        return EmbeddedRegistry(authority_name, store, blobs)
    authority = urlsplit(external.url).netloc
    login = Login(external.username, external.password)
    return RemoteRegistry(RemoteSettings(authority, login, external.ca))


def _minter(settings: Settings, tokens: RegistryTokens) -> Callable[[DeviceId, str], Credential]:
    external = settings.registry
    ca = external.ca.read_text() if external and external.ca else ""

    def mint(device: DeviceId, repository: str) -> Credential:
        if external is None:
            token, expires = tokens.mint(device, [repository])
            return Credential("bearer", token=token, expires=expires)
        if not external.username:
            return Credential("anonymous", ca=ca)
        login = (external.username, external.password)
        return Credential("basic", username=login[0], password=login[1], ca=ca)

    return mint


def _bus(settings: Settings, authority: DiskAuthority) -> DeviceBus:
    if settings.broker is None:
        tls = authority.server_context(_hosts(settings), require_client=True)
        return MqttFront(tls=tls, host=settings.host, port=settings.mqtt_port)
    host, port = settings.broker
    return BrokerBus(
        tls=authority.client_context("hub"),
        settings=BrokerSettings(host=host, port=port, client_id=HUB_USER),
        clock=SystemClock(),
        random=Random(),  # noqa: S311 - spreads reconnects, no secret
    )


class Accounts:
    """Who may use the image registry by password: operators, with a token as the password."""

    def __init__(self, operators: OperatorService) -> None:
        self._operators = operators

    async def authenticate(self, username: str, password: str) -> Access:
        """Return what an operator may do, or raise DeniedError (`token-invalid`)."""
        token = await asyncio.to_thread(self._operators.authenticate, password)
        return Access(f"{token.name} as {username}"[:100], pull=("*",), push=("*",))


def write_broker(settings: Settings, folder: Path, port: int) -> Path:
    """Write what Mosquitto needs to serve this hub into `folder`; return its configuration file.

    Raises:
        FleetError: `disk-full`, or what opening the keys raises.
    """
    authority = DiskAuthority(settings.data / "keys", SystemClock())
    chain, key = authority.issue_server("broker", _hosts(settings))
    data = folder / "data"
    with disk_errors():
        data.mkdir(parents=True, exist_ok=True)
        write_private(folder / "server.pem", chain.read_bytes())
        write_private(folder / "server.key", key.read_bytes())
        (folder / "roots.pem").write_text(authority.roots_pem())
        write_private(folder / "access", render_access(HUB_USER).encode())
        config = MosquittoConfig(
            host=settings.host,
            port=port,
            certificate=folder / "server.pem",
            key=folder / "server.key",
            client_roots=folder / "roots.pem",
            access_file=folder / "access",
            data_folder=data,
        )
        path = folder / "mosquitto.conf"
        path.write_text(render_mosquitto(config))
    return path


def write_admin(settings: Settings, hub: Hub, url: str) -> Path:
    """Write `admin.json`, what the command line needs, keeping the token of an older one.

    Raises:
        FleetError: `settings-invalid`, `disk-full`, when it cannot be written.
    """
    path = settings.data / "admin.json"
    try:
        token = json.loads(path.read_text())["token"]
        hub.services.operators.authenticate(token)
    except (OSError, ValueError, KeyError, TypeError, DeniedError):
        token = hub.services.operators.issue("admin")
    content = {"url": url, "token": token, "ca": hub.authority.roots_pem()}
    try:
        write_private(path, json.dumps(content, indent=2).encode())
    except OSError as error:
        raise unusable(path, error) from error
    return path
