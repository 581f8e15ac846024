"""Brings an image from a registry into the image store.

Decides the order: documents, then the checks that can refuse the image, then layers one by one,
then the record. Works the same for one device and for many simulated ones that share a store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from agent.adapters.images.client import Meter, RegistryClient, Source
from agent.adapters.images.documents import (
    ImageConfig,
    Index,
    Manifest,
    check_machine,
    choose_child,
    parse_config,
    parse_manifest,
)
from agent.adapters.images.store import ImageStore
from protocol.errors import Code, InvalidError
from protocol.ids import Digest, ImageRef, digest_of
from protocol.messages import Credential


@dataclass(frozen=True, slots=True)
class Resolved:
    """An image whose manifest was fetched and verified.

    Attributes:
        digest: The digest that was asked for: of an image or of an index.
        manifest: The image for this machine.
        documents: Raw documents so far, by digest.
    """

    source: Source
    digest: Digest
    manifest: Manifest
    documents: dict[str, bytes]


class ImagePuller:
    """Pulls images into one store, one at a time.

    Args:
        client: How registries are reached.
        store: Where images go.
        architecture: This machine's, in the words of OCI images.
    """

    def __init__(self, client: RegistryClient, store: ImageStore, *, architecture: str) -> None:
        self._client = client
        self.store = store
        self.architecture = architecture
        self._turn = asyncio.Lock()

    async def resolve(self, image: ImageRef, credential: Credential) -> Resolved:
        """Fetch and verify the manifest of an image for this machine.

        Raises:
            FleetError: as `RegistryClient.manifest`, `image-unsuitable`, `id-invalid` for an image
                that is not pinned by digest.
        """
        digest = pinned_digest(image)
        source = Source(image, credential, Meter())
        raw = await self._client.manifest(source, digest)
        documents: dict[str, bytes] = {digest: raw}
        parsed = parse_manifest(raw)
        if isinstance(parsed, Index):
            child = choose_child(parsed, self.architecture).address
            raw = await self._client.manifest(source, child)
            documents[child] = raw
            parsed = parse_manifest(raw)
        if not isinstance(parsed, Manifest):
            raise InvalidError(
                f"image {str(image)!r} is an index of indexes",
                code=Code.IMAGE_UNSUITABLE,
                hint="push the image with one manifest per architecture",
            )
        return Resolved(source, digest, parsed, documents)

    async def complete(self, resolved: Resolved, check: Callable[[ImageConfig], None]) -> None:
        """Bring everything else of an image; nothing happens when it is whole already.

        Args:
            resolved: What `resolve` returned.
            check: Refuses a configuration this runtime cannot run, before layers are fetched.

        Raises:
            FleetError: as `RegistryClient.blob`, `image-unsuitable`, `disk-full`.
        """
        async with self._turn:
            if resolved.digest not in self.store.images():
                await self._bring(resolved, check)

    async def remove(self, keep: frozenset[str]) -> list[str]:
        """Remove images not in `keep`, never while one is being brought."""
        async with self._turn:
            return await asyncio.to_thread(self.store.remove, keep)

    async def _bring(self, resolved: Resolved, check: Callable[[ImageConfig], None]) -> None:
        source, manifest = resolved.source, resolved.manifest
        raw = await self._client.document(source, manifest.config)
        config = parse_config(raw)
        check_machine(config, self.architecture)
        check(config)
        documents = resolved.documents | {digest_of(raw): raw}
        missing = await asyncio.to_thread(
            self.store.begin, resolved.digest, str(source.image), documents, manifest
        )
        for layer in missing:
            await self._client.blob(source, layer, self.store.partial(layer))
            await asyncio.to_thread(self.store.unpack, layer)
        await asyncio.to_thread(self.store.finish, resolved.digest)


def pinned_digest(image: ImageRef) -> Digest:
    """Return the digest of an image.

    Raises:
        InvalidError: `id-invalid`, when it is named by tag.
    """
    if image.digest is None:
        raise InvalidError(
            f"image {str(image)!r} is not pinned by digest",
            code=Code.ID_INVALID,
            hint="write it as 'registry:port/name@sha256:...'",
        )
    return image.digest
