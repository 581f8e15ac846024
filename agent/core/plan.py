"""What the agent can be told to do: a closed set of values."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec

from protocol.ids import ImageRef, ModuleName, parse_image_ref
from protocol.manifest import GoldenSamples, InputSource, Module, Probe


@dataclass(frozen=True, slots=True)
class ModuleSpec:
    """One module as the agent shall run it.

    Attributes:
        name: Its name in the manifest.
        image: Pinned by digest.
        create_options: The engine's create options (`HostConfig`, `Env`, `Cmd`, ...).
        env: Environment variables.
        port: Port the module's server listens on inside its container.
        restart_policy: `never`, `on-failure`, `on-unhealthy` or `always`.
        startup_order: Lower starts earlier.
        running: Whether it shall run, or only be there.
    """

    name: ModuleName
    image: ImageRef
    create_options: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    port: int = 5001
    restart_policy: str = "always"
    startup_order: int = 4294967295
    running: bool = True
    ready_probe: Probe | None = None
    golden: GoldenSamples | None = None
    inputs: dict[str, InputSource] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Identity of what must be re-created to change: image, create options, environment, port.

        16 hexadecimal digits; policies and probes are not part of it, they change in place.
        """
        identity = (str(self.image), self.create_options, self.env, self.port)
        encoded = msgspec.json.encode(identity, order="deterministic")
        return hashlib.sha256(encoded).hexdigest()[:16]

    @property
    def instance_id(self) -> str:
        """Name of the one instance that runs exactly this: `module.fingerprint`."""
        return f"{self.name}.{self.fingerprint}"


def spec_of(name: ModuleName, module: Module) -> ModuleSpec:
    """Return what the agent shall run for one module of a manifest."""
    return ModuleSpec(
        name=name,
        image=parse_image_ref(module.settings.image),
        create_options=msgspec.json.decode(module.settings.create_options),
        env={key: value.text() for key, value in module.env.items()},
        port=module.port,
        restart_policy=module.restart_policy,
        startup_order=module.startup_order,
        running=module.status == "running",
        ready_probe=module.probes.ready,
        golden=module.golden_samples,
        inputs=dict(module.inputs),
    )


class InstanceState(StrEnum):
    """What a runtime sees of an instance."""

    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class Instance:
    """Something a runtime started, found again after the agent's own restart.

    Attributes:
        id: `ModuleSpec.instance_id` it was started from.
        module: Name of the module.
        fingerprint: Fingerprint of its spec.
        state: Running or exited.
        endpoint: `http://127.0.0.1:<port>` of its server while it runs, or None.
        exit_code: Exit code once exited, None when unknown (killed with the machine, say).
        started_at: Seconds since 1970, by the runtime's clock.
        image: Image it runs, by digest.
    """

    id: str
    module: ModuleName
    fingerprint: str
    state: InstanceState
    image: str
    endpoint: str | None = None
    exit_code: int | None = None
    started_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Observed:
    """What is there: manifest digests of whole images, and instances."""

    images: frozenset[str]
    instances: tuple[Instance, ...]


@dataclass(frozen=True, slots=True)
class Pull:
    """Bring an image to the device and verify it."""

    image: ImageRef


@dataclass(frozen=True, slots=True)
class Start:
    """Start an instance of the module beside whatever runs."""

    spec: ModuleSpec


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop and remove an instance."""

    instance_id: str


Action = Pull | Start | Stop
Plan = tuple[Action, ...]
