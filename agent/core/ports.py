"""What the agent needs from the world, as roles. Adapters and the simulator play them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from agent.core.plan import Instance, ModuleSpec, Observed
from protocol.ids import DeviceId, ImageRef
from protocol.messages import Credential, Enrolled, EnrollRequest
from protocol.topics import DownKind, UpKind


class Clock(Protocol):
    """Time, as an input."""

    def now(self) -> datetime:
        """Return the present moment, aware, UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back; only differences mean something."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


# ---- what runs modules ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pulled:
    """Outcome of a pull: bytes that came over the wire for it."""

    bytes_received: int


class Runtime(Protocol):
    """Starts and stops modules. Finds what it started again after a restart of the agent."""

    @property
    def name(self) -> str:
        """Name of the runtime: `docker`, `process`, `simulated`."""
        ...

    async def pull(self, image: ImageRef, credential: Credential) -> Pulled:
        """Bring an image (by digest) to the device, verify every digest, make it durable.

        An image already there and whole costs no bytes.

        Raises:
            FleetError: `image-unavailable` (may work later), `registry-refused`,
                `digest-mismatch`, `image-unsuitable`, `interpreter-missing`, `disk-full`,
                `runtime-unavailable`.
        """
        ...

    async def observe(self) -> Observed:
        """Return what is there. `Observed.images` holds manifest digests of whole images.

        Raises:
            FleetError: `runtime-unavailable`.
        """
        ...

    async def start(self, spec: ModuleSpec) -> Instance:
        """Start an instance; returns at once, readiness is the prober's matter.

        An instance with the same id that still runs is returned as it is; an exited one is
        replaced.

        Raises:
            FleetError: `image-unavailable` when the image was not pulled, `module-start-failed`,
                `runtime-unavailable`.
        """
        ...

    async def stop(self, instance_id: str, *, grace_seconds: float = 10.0) -> None:
        """Stop and remove an instance: SIGTERM, then SIGKILL. Nothing happens when it is gone."""
        ...

    async def logs(self, instance_id: str, *, tail: int = 100) -> str:
        """Return the last lines an instance wrote; empty when there is none."""
        ...

    async def remove_images(self, keep: frozenset[str]) -> None:
        """Remove images whose digest is not in `keep` and which nothing uses."""
        ...


class Prober(Protocol):
    """Talks to a module's own server on this device."""

    async def request(
        self, url: str, body: bytes | None, *, timeout_seconds: float
    ) -> tuple[int, bytes]:
        """GET (no body) or POST JSON and return (status, answer).

        Raises:
            FleetError: `probe-failed`, when no answer came in time.
        """
        ...


# ---- the hub -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Connected:
    """The transport reached the hub."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The transport lost the hub."""

    reason: str


@dataclass(frozen=True, slots=True)
class Received:
    """The hub said something."""

    kind: DownKind
    body: bytes


TransportEvent = Connected | Disconnected | Received


class Transport(Protocol):
    """Small messages to and from the hub. May lose everything; never blocks."""

    async def run(self, on_event: Callable[[TransportEvent], None]) -> None:
        """Stay connected, with back-off and jitter, until cancelled. Events come in order."""
        ...

    def publish(self, kind: UpKind, body: bytes) -> bool:
        """Hand a message to the transport; False when it is not connected or congested."""
        ...


class HubApi(Protocol):
    """The hub's HTTPS interface for devices."""

    async def enroll(self, request: EnrollRequest) -> Enrolled:
        """Trade a claim for an identity.

        Raises:
            FleetError: `claim-invalid`, `device-exists`, `profile-unknown`, `hub-unreachable`,
                `certificate-invalid` when the hub is not the one the claim pins.
        """
        ...

    async def credential(self, image: ImageRef) -> Credential:
        """Get the means to pull an image of the current desired state.

        Raises:
            FleetError: `forbidden`, `hub-unreachable`, `certificate-invalid`.
        """
        ...

    async def renew(self, csr_pem: str) -> str:
        """Get a new certificate chain (PEM) over the old one's connection.

        Raises:
            FleetError: `certificate-invalid`, `hub-unreachable`.
        """
        ...


# ---- the disk ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OutboxRecord:
    """A message that waits for the hub's acknowledgement; see protocol.messages.TelemetryRecord."""

    seq: int
    module: str
    output: str
    at_ms: int
    body: bytes
    properties: dict[str, str]


@dataclass(frozen=True, slots=True)
class OutboxCounts:
    """Life-time counters of the outbox."""

    stored: int
    acknowledged: int
    refused: int
    waiting: int


MAX_BODY_BYTES = 512 * 1024  # of one message: with base64 around it, it fits into every packet


class Outbox(Protocol):
    """Messages kept until the hub has committed them. Survives SIGKILL and power loss."""

    @property
    def epoch(self) -> str:
        """Identity of this store's life; a new store has a new one."""
        ...

    def add(
        self,
        module: str,
        output: str,
        at_ms: int,
        body: bytes,
        properties: dict[str, str],
        *,
        consumed: str | None = None,
    ) -> int:
        """Store one message durably and return its seq (from 1, no gaps).

        `consumed` names an input that this message answers; both become durable together, so an
        input is never answered twice. Raises FleetError (`disk-full`).
        """
        ...

    def is_consumed(self, name: str) -> bool:
        """Tell whether an input was answered already."""
        ...

    def forget_consumed(self, names: Sequence[str]) -> None:
        """Drop the notes about inputs that are gone."""
        ...

    def waiting(self, *, after: int, limit: int) -> Sequence[OutboxRecord]:
        """Return unacknowledged records with seq beyond `after`, in order."""
        ...

    def acknowledge(self, ranges: Sequence[tuple[int, int]], refused: Sequence[int]) -> int:
        """Remove acknowledged (inclusive ranges) and refused records; return how many went."""
        ...

    def counts(self) -> OutboxCounts:
        """Return the counters."""
        ...


class StateStore(Protocol):
    """Small durable values of the agent: synced before `put` returns."""

    def get(self, key: str) -> bytes | None:
        """Return a value, or None."""
        ...

    def put(self, values: dict[str, bytes | None]) -> None:
        """Write values in one transaction; None removes a key."""
        ...


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this device is and whom it trusts; the private key stays with the adapters.

    Attributes:
        device: Its id.
        hub_url: Base URL of the hub's HTTPS interface.
        enrolled: What the hub answered to the enrolment, certificate renewed since included.
    """

    device: DeviceId
    hub_url: str
    enrolled: Enrolled
