"""Many simulated devices, few real processes.

Every device pulls with its own credential and verifies its own manifest; layers are brought once,
and devices that would run exactly the same share one real process. What each device sees of it is
its own. Decides who shares what; runs nothing by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from agent.adapters.images.documents import ImageConfig
from agent.adapters.images.puller import ImagePuller, pinned_digest
from agent.core.plan import Instance, InstanceState, ModuleSpec, Observed
from agent.core.ports import Pulled, Runtime
from protocol.errors import Code, DeviceError
from protocol.ids import ImageRef, ModuleName
from protocol.messages import Credential


@dataclass
class _Device:
    """What one simulated device has, or is about to have: it survives its agent."""

    images: set[str] = field(default_factory=set)
    coming: set[str] = field(default_factory=set)
    instances: dict[str, Instance] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)


class SharedMachine:
    """The one real machine below all simulated devices.

    Args:
        runtime: Runs the real processes.
        puller: Brings images to the store that `runtime` uses.
        check: Refuses an image `runtime` cannot run, before its layers are fetched.
    """

    def __init__(
        self, runtime: Runtime, puller: ImagePuller, check: Callable[[ImageConfig], None]
    ) -> None:
        self.runtime = runtime
        self.puller = puller
        self.check = check
        self.turn = asyncio.Lock()
        self._devices: dict[str, _Device] = {}
        self._by_fingerprint: dict[str, str] = {}

    def device(self, name: str) -> _Device:
        """Return what a device has, made on first use."""
        return self._devices.setdefault(name, _Device())

    def images_in_use(self) -> frozenset[str]:
        """Return the images any device has or is pulling."""
        sets = [device.images | device.coming for device in self._devices.values()]
        return frozenset().union(*sets)

    async def acquire(self, spec: ModuleSpec) -> Instance:
        """Return the real instance for a spec, started if there is none that runs."""
        real = self._by_fingerprint.get(spec.fingerprint)
        if real is not None and real != spec.instance_id:
            spec = replace(spec, name=ModuleName(real.rpartition(".")[0]))
        started = await self.runtime.start(spec)
        self._by_fingerprint[spec.fingerprint] = started.id
        return started

    async def release(self, real: str, *, grace_seconds: float) -> None:
        """Stop a real instance once no device uses it."""
        if any(real in device.shared.values() for device in self._devices.values()):
            return
        self._by_fingerprint.pop(real.rpartition(".")[2], None)
        await self.runtime.stop(real, grace_seconds=grace_seconds)


class SharedRuntime:
    """Plays `agent.core.ports.Runtime` for one simulated device.

    Args:
        device: Id of the device.
        machine: Shared with the other devices of this process.
    """

    def __init__(self, device: str, machine: SharedMachine) -> None:
        self._machine = machine
        self._device = machine.device(device)

    @property
    def name(self) -> str:
        """Name of the runtime."""
        return "simulated"

    async def pull(self, image: ImageRef, credential: Credential) -> Pulled:
        """Bring an image; see the port. The manifest is fetched for every device."""
        digest = pinned_digest(image)
        if digest in self._device.images:
            return Pulled(0)
        resolved = await self._machine.puller.resolve(image, credential)
        self._device.coming.add(digest)
        try:
            await self._machine.puller.complete(resolved, self._machine.check)
            self._device.images.add(digest)
        finally:
            self._device.coming.discard(digest)
        return Pulled(resolved.source.meter.bytes_received)

    async def observe(self) -> Observed:
        """Return what this device has; see the port."""
        device = self._device
        if not device.instances:
            return Observed(frozenset(device.images), ())
        observed = await self._machine.runtime.observe()
        real = {instance.id: instance for instance in observed.instances}
        for name, own in device.instances.items():
            device.instances[name] = _seen(own, real.get(device.shared[name]))
        instances = tuple(device.instances[key] for key in sorted(device.instances))
        return Observed(frozenset(device.images) & observed.images, instances)

    async def start(self, spec: ModuleSpec) -> Instance:
        """Start an instance, or share the one that runs already; see the port."""
        if pinned_digest(spec.image) not in self._device.images:
            raise DeviceError(
                f"image {str(spec.image)!r} is not on this device",
                code=Code.IMAGE_UNAVAILABLE,
                hint="pull it before starting it",
            )
        async with self._machine.turn:
            real = await self._machine.acquire(spec)
            own = replace(real, id=spec.instance_id, module=spec.name)
            self._device.instances[own.id] = own
            self._device.shared[own.id] = real.id
        return own

    async def stop(self, instance_id: str, *, grace_seconds: float = 10.0) -> None:
        """Stop this device's instance; the real one ends with the last device. See the port."""
        async with self._machine.turn:
            real = self._device.shared.pop(instance_id, None)
            self._device.instances.pop(instance_id, None)
            if real is not None:
                await self._machine.release(real, grace_seconds=grace_seconds)

    async def logs(self, instance_id: str, *, tail: int = 100) -> str:
        """Return the last lines the shared instance wrote; see the port."""
        real = self._device.shared.get(instance_id)
        return await self._machine.runtime.logs(real, tail=tail) if real else ""

    async def remove_images(self, keep: frozenset[str]) -> None:
        """Forget images of this device; the store drops what no device has. See the port."""
        used = {instance.image for instance in self._device.instances.values()}
        self._device.images &= keep | used
        await self._machine.runtime.remove_images(self._machine.images_in_use())


def _seen(own: Instance, real: Instance | None) -> Instance:
    """Return a device's instance as the real one is now."""
    if real is None:
        return replace(own, state=InstanceState.EXITED, endpoint=None)
    return replace(
        own,
        state=real.state,
        endpoint=real.endpoint,
        exit_code=real.exit_code,
        started_at=real.started_at,
    )
