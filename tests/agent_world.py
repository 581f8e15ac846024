"""A small world for the agent's deciding code: signed documents, virtual time, a disk that dies.

Nothing here waits: the loop's own clock jumps to whatever is due next.
"""

from __future__ import annotations

import asyncio
import json
import selectors
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from agent.core.desired import Trust
from agent.core.plan import ModuleSpec
from protocol import codec, dsse
from protocol.errors import Code, UnavailableError
from protocol.ids import DeviceId, ImageRef, ModuleName, parse_image_ref
from protocol.messages import DESIRED_TYPE, Credential, Desired, Enrolled, EnrollRequest
from simulator.fakes import FakeMachine
from simulator.memory_outbox import MemoryState

T = TypeVar("T")
DEVICE = DeviceId("pi-7")
KEY_ID = "director-1"
DIRECTOR = Ed25519PrivateKey.from_private_bytes(b"a director key for the tests ...")
STRANGER = Ed25519PrivateKey.from_private_bytes(b"somebody else's key for tests ..")
START = datetime(2030, 1, 1, tzinfo=UTC)


# ---- time ---------------------------------------------------------------------------------------


class _Jumping(selectors.DefaultSelector):
    """Does not wait for the time: moves it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everything waits for something that never comes")
        if not ready and timeout:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only when nothing else is left to do."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


class VirtualClock:
    """The agent's clock on a VirtualLoop; every wait of asyncio shares it."""

    def now(self) -> datetime:
        return START + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


async def until(condition: Callable[[], object], *, seconds: float = 300.0) -> None:
    """Let virtual time pass until something holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - virtual time, nothing is polled in earnest
            await asyncio.sleep(0.05)


# ---- documents ----------------------------------------------------------------------------------


def verify(key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def trust(device: str = DEVICE) -> Trust:
    return Trust(DeviceId(device), {KEY_ID: DIRECTOR.public_key().public_bytes_raw()}, verify)


def image(number: int, name: str = "digits") -> str:
    return f"hub.example:8443/{name}@sha256:{number:064x}"


def ref(number: int, name: str = "digits") -> ImageRef:
    return parse_image_ref(image(number, name))


def spec(name: str = "digits", number: int = 1, **changes: Any) -> ModuleSpec:
    return ModuleSpec(name=ModuleName(name), image=ref(number), **changes)


def module(number: int, **changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"image": image(number)}
    if options := changes.pop("createOptions", None):
        settings["createOptions"] = json.dumps(options)
    return {
        "type": "docker",
        "status": "running",
        "restartPolicy": "always",
        "settings": settings,
    } | changes


def manifest(modules: dict[str, dict[str, Any]], **routes: str) -> dict[str, Any]:
    agent = {"schemaVersion": "1.1", "modules": modules}
    hub = {"schemaVersion": "1.1", "routes": routes or {"up": "FROM /messages/* INTO $upstream"}}
    return {
        "modulesContent": {
            "$edgeAgent": {"properties.desired": agent},
            "$edgeHub": {"properties.desired": hub},
        }
    }


def desired(
    version: int,
    modules: dict[str, dict[str, Any]] | None = None,
    *,
    epoch: int = 1,
    device: str = DEVICE,
    life_seconds: int = 86_400,
    content: dict[str, Any] | None = None,
) -> Desired:
    issued = int(START.timestamp())
    return Desired(
        device=device,
        epoch=epoch,
        version=version,
        issued=issued,
        expires=issued + life_seconds,
        deployment=f"deployment-{version}",
        manifest=json.dumps(content or manifest(modules or {"digits": module(version)})),
    )


def envelope(
    document: Desired, *, key: Ed25519PrivateKey = DIRECTOR, key_id: str = KEY_ID
) -> bytes:
    return dsse.seal(DESIRED_TYPE, codec.encode(document), key_id, key.sign)


# ---- the hub's interface, and a disk ------------------------------------------------------------


class OpenHandedHub:
    """A HubApi that gives every device what it asks for."""

    async def enroll(self, request: EnrollRequest) -> Enrolled:
        raise UnavailableError(f"no claims here: {request.profile}", code=Code.HUB_UNREACHABLE)

    async def credential(self, image: ImageRef) -> Credential:
        return Credential("bearer", token=image.repository)

    async def renew(self, csr_pem: str) -> str:
        raise UnavailableError(f"no renewal: {csr_pem}", code=Code.HUB_UNREACHABLE)


class PowerCutError(BaseException):
    """The device is dead: nothing catches this."""


@dataclass
class Disk(MemoryState):
    """A StateStore that dies after its n-th write, or refuses to write.

    Attributes:
        dies_after: Writes until the power goes, the last one included; None for never.
        refusals: How many of the next writes fail with `disk-full`.
        update_writes: How often the state of the update was written.
    """

    dies_after: int | None = None
    refusals: int = 0
    update_writes: int = 0
    history: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def put(self, values: dict[str, bytes | None]) -> None:
        if self.refusals > 0:
            self.refusals -= 1
            raise UnavailableError("no space is left", code=Code.DISK_FULL)
        super().put(values)
        if (progress := values.get("update")) is not None:
            self.update_writes += 1
            self.history.append(progress)
        if self.dies_after is not None:
            self.dies_after -= 1
            if self.dies_after == 0:
                self.dies_after = None
                raise PowerCutError


def running(machine: FakeMachine) -> set[str]:
    """Return the instances that run."""
    return {key for key, one in machine.instances.items() if one.state == "running"}
