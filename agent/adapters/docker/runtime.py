"""Runs modules as containers of a Docker Engine.

Decides how this agent's images and containers are told from everybody else's; touches no others.
The engine pulls, verifies and isolates; it does not restart, that is the planner's matter.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import docker
import structlog
from docker.errors import APIError, NotFound

from agent.adapters.docker.engine import DockerEngine, said
from agent.adapters.docker.images import DockerImages
from agent.adapters.docker.options import (
    DEVICE_LABEL,
    container_name,
    create_body,
    pulled_name,
    to_instance,
)
from agent.adapters.docker.pull import (
    CERTIFICATES,
    Progress,
    engine_credential,
    follow,
    place_certificate,
    pull_error,
)
from agent.adapters.durable_files import sync_filesystem
from agent.adapters.images.puller import pinned_digest
from agent.core.plan import Instance, InstanceState, ModuleSpec, Observed
from agent.core.ports import Pulled
from protocol.errors import Code, DeviceError
from protocol.ids import DeviceId, Digest, ImageRef
from protocol.messages import Credential

_CONFLICT = 409
_STALL_SECONDS = 600.0
log = structlog.get_logger()


class DockerRuntime:
    """Plays `agent.core.ports.Runtime` with a Docker Engine.

    Args:
        engine: The engine.
        device: Whose containers these are; several devices can share an engine.
        state: Folder for the record of whole images; made if missing.
        ca_pem: Authority of the hub's registry, empty when the system's trust suffices.
        certificates: Where the engine looks for authorities.
    """

    def __init__(
        self,
        engine: DockerEngine,
        device: DeviceId,
        state: Path,
        *,
        ca_pem: str = "",
        certificates: Path = CERTIFICATES,
    ) -> None:
        self._engine = engine
        self._device = device
        self._images = DockerImages(state / "docker-images.json")
        self._ca_pem = ca_pem
        self._certificates = certificates
        self._turn = asyncio.Lock()

    @property
    def name(self) -> str:
        """Name of the runtime."""
        return "docker"

    async def pull(self, image: ImageRef, credential: Credential) -> Pulled:
        """Bring an image to the engine; see the port."""
        digest, name = pinned_digest(image), pulled_name(image)
        async with self._turn:
            if digest in await self._engine.call(self._present):
                return Pulled(0)
            interrupted = await asyncio.to_thread(self._images.begin, digest)
            if interrupted:
                await self._engine.call(lambda api: _remove_image(api, name))
            if not place_certificate(
                image.authority, credential.ca or self._ca_pem, self._certificates
            ):
                log.warning("docker.certificate_not_placed", registry=image.authority)
            progress = Progress()
            await self._watched(image, credential, progress)
            await self._engine.call(lambda api: _verify_and_sync(api, image, digest))
            await asyncio.to_thread(self._images.finish, digest, name)
        return Pulled(progress.bytes_received)

    async def observe(self) -> Observed:
        """Return what is there; see the port."""
        return await self._engine.call(self._look)

    async def start(self, spec: ModuleSpec) -> Instance:
        """Start an instance; see the port."""
        async with self._turn:
            return await self._engine.call(lambda api: self._start(api, spec))

    async def stop(self, instance_id: str, *, grace_seconds: float = 10.0) -> None:
        """Stop and remove an instance; see the port."""
        name = container_name(self._device, instance_id)

        def work(api: docker.APIClient) -> None:
            with suppress(NotFound):
                api.stop(name, timeout=max(0, round(grace_seconds)))
            _remove_container(api, name)

        await self._engine.call(work)
        log.info("instance.stopped", instance=instance_id)

    async def logs(self, instance_id: str, *, tail: int = 100) -> str:
        """Return the last lines an instance wrote; see the port."""
        name = container_name(self._device, instance_id)

        def work(api: docker.APIClient) -> str:
            with suppress(NotFound):
                raw: bytes = api.logs(name, stdout=True, stderr=True, tail=tail)
                return raw.decode("utf-8", errors="replace")
            return ""

        return await self._engine.call(work)

    async def remove_images(self, keep: frozenset[str]) -> None:
        """Remove images this agent pulled; see the port."""
        async with self._turn:
            await self._engine.call(lambda api: self._remove_images(api, keep))

    # ---- in threads -----------------------------------------------------------------------------

    async def _watched(self, image: ImageRef, credential: Credential, progress: Progress) -> None:
        """Pull, but give up when the engine says nothing for a long time."""
        work = asyncio.ensure_future(
            self._engine.call(lambda api: _pull(api, image, credential, progress))
        )
        seen = -1
        try:
            while not work.done() and progress.lines != seen:
                seen = progress.lines
                await asyncio.wait({work}, timeout=_STALL_SECONDS)
            if not work.done():
                raise pull_error(image, "the engine stands still")
            work.result()
        finally:
            work.cancel()

    def _present(self, api: docker.APIClient) -> frozenset[str]:
        """Return the digests of images that are both recorded and there."""
        names: set[str] = set()
        for found in api.images():
            names.update(found.get("RepoDigests") or ())
        return frozenset(d for d, name in self._images.whole().items() if name in names)

    def _look(self, api: docker.APIClient) -> Observed:
        filters = {"label": f"{DEVICE_LABEL}={self._device}"}
        instances: list[Instance] = []
        for found in api.containers(all=True, filters=filters):
            with suppress(NotFound):  # removed since it was listed
                instance = to_instance(api.inspect_container(found["Id"]))
                if instance is not None:
                    instances.append(instance)
        instances.sort(key=lambda instance: instance.id)
        return Observed(self._present(api), tuple(instances))

    def _start(self, api: docker.APIClient, spec: ModuleSpec) -> Instance:
        name = container_name(self._device, spec.instance_id)
        running = _inspect(api, name)
        if running is not None and running.state is InstanceState.RUNNING:
            return running
        _remove_container(api, name)
        if pinned_digest(spec.image) not in self._images.whole():
            raise _not_here(spec.image)
        try:
            body = create_body(self._device, spec)
            api.create_container_from_config(body, name)  # type: ignore[no-untyped-call]  # stubs
        except NotFound as error:
            raise _not_here(spec.image) from error
        except APIError as error:
            raise _no_start(spec, said(error)) from error
        try:
            api.start(name)
        except APIError as error:
            _remove_container(api, name)
            raise _no_start(spec, said(error)) from error
        started = _inspect(api, name)
        if started is None:
            raise _no_start(spec, "its container is gone")
        log.info("instance.started", instance=started.id, endpoint=started.endpoint)
        return started

    def _remove_images(self, api: docker.APIClient, keep: frozenset[str]) -> None:
        used = {instance.image for instance in self._look(api).instances}
        for digest, name in self._images.whole().items():
            if digest in keep or digest in used:
                continue
            self._images.forget(digest)
            _remove_image(api, name)
            log.info("image.removed", image=digest)


def _pull(
    api: docker.APIClient, image: ImageRef, credential: Credential, progress: Progress
) -> None:
    named = ImageRef(image.authority, image.repository)
    try:
        stream = api.pull(
            str(named),
            tag=image.digest,
            stream=True,
            decode=True,
            auth_config=engine_credential(credential),
        )
        follow(stream, image, progress)
    except APIError as error:
        raise pull_error(image, said(error)) from error


def _verify_and_sync(api: docker.APIClient, image: ImageRef, digest: Digest) -> None:
    """Check that the engine has what was asked for, and make it survive a power cut."""
    root = Path(api.info()["DockerRootDir"])
    try:
        found: dict[str, Any] = api.inspect_image(pulled_name(image))  # type: ignore[no-untyped-call]  # stubs
    except NotFound as error:
        raise pull_error(image, "the engine does not have it after the pull") from error
    if not any(name.endswith(f"@{digest}") for name in found.get("RepoDigests") or ()):
        raise pull_error(image, "verification failed after the pull")
    try:
        sync_filesystem(root)
    except OSError:  # the engine's folder is closed to this user, or on another machine
        os.sync()


def _inspect(api: docker.APIClient, name: str) -> Instance | None:
    try:
        return to_instance(api.inspect_container(name))
    except NotFound:
        return None


def _remove_container(api: docker.APIClient, name: str) -> None:
    with _unless(_CONFLICT), suppress(NotFound):  # conflict: it is being removed already
        api.remove_container(name, force=True, v=True)


def _remove_image(api: docker.APIClient, name: str) -> None:
    with _unless(_CONFLICT), suppress(NotFound):  # conflict: somebody else's container uses it
        api.remove_image(name)


@contextmanager
def _unless(status: int) -> Iterator[None]:
    try:
        yield
    except APIError as error:
        if error.status_code != status:
            raise


def _not_here(image: ImageRef) -> DeviceError:
    return DeviceError(
        f"image {str(image)!r} is not on this device",
        code=Code.IMAGE_UNAVAILABLE,
        hint="pull it before starting it",
    )


def _no_start(spec: ModuleSpec, why: str) -> DeviceError:
    return DeviceError(
        f"module {spec.name!r} did not start: {why}",
        code=Code.MODULE_START_FAILED,
        hint="check the entrypoint of its image and the create options",
    )
