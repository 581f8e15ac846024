"""The means to pull: short-lived, and only for what a device shall run now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from hub.core.desired import images_of
from hub.core.ports import Store
from protocol import strict_json
from protocol.errors import Code, DeniedError
from protocol.ids import DeviceId, ImageRef, parse_image_ref
from protocol.manifest import MAX_BYTES, read_manifest
from protocol.messages import Credential

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class CredentialService:
    """Hands out credentials for images.

    Attributes:
        authority: Registry the hub itself vouches for.
        mint: (device, repository) -> means to pull it from that registry.
    """

    store: Store
    authority: str
    mint: Callable[[DeviceId, str], Credential]

    def for_image(self, device: DeviceId, image: str) -> Credential:
        """Return the means to pull an image of a device's current desired state.

        Raises:
            InvalidError: `id-invalid`.
            DeniedError: `forbidden`, for any other image.
        """
        wanted = parse_image_ref(image)
        with self.store.begin(write=False) as work:
            state = work.deployments.desired(device)
            deployment = work.deployments.get(state.deployment_id) if state else None
        manifest = (
            strict_json.parse_object(
                deployment.manifest.encode(),
                limit=2 * MAX_BYTES,
                code=Code.MANIFEST_INVALID,
                what="manifest",
            )
            if deployment
            else None
        )
        if manifest is None or wanted not in images_of(manifest):
            raise DeniedError(
                f"image {image!r} is not part of what {device!r} shall run",
                code=Code.FORBIDDEN,
                hint="ask for the images of the newest desired state",
            )
        log.info("credential.issued", device=device, image=image)
        if wanted.authority == self.authority:
            return self.mint(device, wanted.repository)
        return _foreign(manifest, wanted)


def _foreign(manifest: dict[str, object], wanted: ImageRef) -> Credential:
    """Return what the manifest itself says about a registry that is not ours."""
    settings = read_manifest(manifest).agent.runtime.settings
    for entry in settings.registry_credentials.values():
        if entry.address.split("/")[0] == wanted.authority:
            return Credential("basic", username=entry.username, password=entry.password)
    return Credential("anonymous")
