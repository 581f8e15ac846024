"""The hub's own registry as a place to put images: straight into its blobs and its index.

Same process, same rules for manifests as over HTTP; no permission is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from hub.core.distribution import parse_manifest, parse_oci_digest, parse_tag, store_manifest
from hub.core.ports import Blobs, Store
from protocol.errors import Code, NotFoundError
from protocol.ids import Digest, parse_repository


@dataclass(frozen=True, slots=True)
class EmbeddedRegistry:
    """Plays `ImageRegistry` on a store and blobs.

    Attributes:
        authority: Where devices reach the registry: `host:port`.
    """

    authority: str
    store: Store
    blobs: Blobs

    def has_blob(self, repository: str, digest: Digest) -> bool:
        """Tell whether a blob is visible in a repository."""
        with self.store.begin(write=False) as work:
            visible = work.oci.has_blob(repository, digest)
        return visible and self.blobs.has(digest)

    def mount_blob(self, repository: str, digest: Digest, source: str | None = None) -> bool:  # noqa: ARG002 - all repositories are one store here
        """Make a blob visible that is stored already; tell whether that worked."""
        if not self.blobs.has(digest):
            return False
        self._link(repository, [digest])
        return True

    def put_blob(self, repository: str, stream: BinaryIO, digest: Digest, size: int) -> None:  # noqa: ARG002 - the digest says it all
        """Store what `stream` yields.

        Raises:
            InvalidError: `digest-mismatch`.
            UnavailableError: `disk-full`, `database-unavailable`.
        """
        parse_repository(repository)
        self.blobs.put(stream, expected=digest)
        self._link(repository, [digest])

    def put_manifest(
        self, repository: str, content: bytes, media_type: str, tag: str | None = None
    ) -> Digest:
        """Store a manifest whose blobs are there; return its digest.

        Raises:
            DistributionError: The registry's rules are broken.
        """
        manifest = parse_manifest(content, media_type)
        with self.store.begin() as work:
            tags = [] if tag is None else [parse_tag(tag)]
            store_manifest(work, self.blobs, parse_repository(repository), manifest, tags)
            work.commit()
        return manifest.record.digest

    def get_manifest(self, repository: str, reference: str) -> tuple[bytes, str]:
        """Return a manifest by tag or digest, and its media type.

        Raises:
            NotFoundError: `image-unknown`.
        """
        with self.store.begin(write=False) as work:
            by_digest = ":" in reference
            digest = (
                parse_oci_digest(reference) if by_digest else work.oci.tag(repository, reference)
            )
            record = work.oci.manifest(repository, digest) if digest else None
        if record is None:
            raise NotFoundError(
                f"no image '{reference}' in '{repository}'",
                code=Code.IMAGE_UNKNOWN,
                hint="list the images with `rimward image list`",
            )
        return record.content, record.media_type

    def get_blob(self, repository: str, digest: Digest) -> BinaryIO:
        """Open a blob.

        Raises:
            NotFoundError: `blob-unknown`.
        """
        if not self.has_blob(repository, digest):
            raise NotFoundError(
                f"no blob '{digest}' in '{repository}'",
                code=Code.BLOB_UNKNOWN,
                hint="push it first",
            )
        return self.blobs.open(digest)

    def _link(self, repository: str, digests: Sequence[Digest]) -> None:
        with self.store.begin() as work:
            for digest in digests:
                work.oci.link_blob(parse_repository(repository), digest)
            work.commit()
