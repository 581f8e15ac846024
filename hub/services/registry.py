"""The use cases of the embedded image registry: blobs, uploads, manifests, tags, referrers.

Decides what is visible in which repository and in what order disk and database change. Callers
have checked that the caller may do it. A blob counts as present only where it is linked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import BinaryIO, TypeVar

import structlog

from hub.core.distribution import (
    DistributionError,
    OciCode,
    parse_manifest,
    parse_oci_digest,
    parse_tag,
    store_manifest,
)
from hub.core.oci import ManifestRecord
from hub.core.ports import Clock, OciIndex, Store
from hub.core.uploads import PieceWriter, ResumableBlobs
from protocol.errors import Code, FleetError
from protocol.ids import Digest

MAX_PAGE = 1000
UPLOAD_LIFE_SECONDS = 24 * 3600.0
Result = TypeVar("Result")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TagPage:
    """Some tags of a repository, and whether there are more."""

    tags: tuple[str, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class Registry:
    """The registry over a store and blobs. Every method blocks: call it from a worker thread.

    Raises of every method: DistributionError for refusals of the protocol, FleetError
    (`database-unavailable`, `disk-full`, `busy`) for the machinery.
    """

    store: Store
    blobs: ResumableBlobs
    clock: Clock

    # ---- blobs -----------------------------------------------------------------------------------

    def blob_size(self, repository: str, digest: Digest) -> int:
        """Return the bytes of a blob that is visible in a repository."""
        with self.store.begin(write=False) as work:
            visible = work.oci.has_blob(repository, digest)
        if not visible or not self.blobs.has(digest):
            raise _unknown(OciCode.BLOB_UNKNOWN, f"no blob '{digest}' in '{repository}'")
        return self.blobs.size(digest)

    def open_blob(self, repository: str, digest: Digest) -> tuple[BinaryIO, int]:
        """Open a blob that is visible in a repository; returns it with its size in bytes."""
        size = self.blob_size(repository, digest)
        return self.blobs.open(digest), size

    def delete_blob(self, repository: str, digest: Digest) -> None:
        """Hide a blob from a repository; its bytes stay until nothing refers to them."""
        with self.store.begin() as work:
            if not work.oci.unlink_blob(repository, digest):
                raise _unknown(OciCode.BLOB_UNKNOWN, f"no blob '{digest}' in '{repository}'")
            work.commit()
        _log.info("registry.blob-deleted", repository=repository, digest=digest)

    def mount(
        self, repository: str, digest: Digest, source: str | None, may_pull: Callable[[str], bool]
    ) -> bool:
        """Make a blob of another repository visible here without sending it again.

        Args:
            repository: Where it shall be visible.
            digest: The blob.
            source: Where it is; None to look wherever the caller may pull.
            may_pull: Whether the caller may pull from a repository.

        Returns:
            Whether it worked; False says nothing about why.
        """
        with self.store.begin() as work:
            sources = work.oci.repositories_of_blob(digest) if source is None else (source,)
            visible = any(may_pull(s) and work.oci.has_blob(s, digest) for s in sources)
            if not visible or not self.blobs.has(digest):
                return False
            work.oci.link_blob(repository, digest)
            work.commit()
        return True

    # ---- uploads ---------------------------------------------------------------------------------

    def start_upload(self, repository: str) -> str:
        """Open an upload and return its id; it is bound to the repository."""
        return self.blobs.start_upload(repository)

    def upload_size(self, repository: str, upload: str) -> int:
        """Return the bytes an upload holds."""
        return _upload(lambda: self.blobs.upload_size(repository, upload))

    def continue_upload(self, repository: str, upload: str) -> PieceWriter:
        """Open the end of an upload for writing."""
        return _upload(lambda: self.blobs.continue_upload(repository, upload))

    def finish_upload(self, repository: str, upload: str, digest: Digest) -> None:
        """Turn an upload into a blob of the repository."""
        _upload(lambda: self.blobs.finish_upload(repository, upload, digest))
        with self.store.begin() as work:
            work.oci.link_blob(repository, digest)
            work.commit()
        _log.info("registry.blob-pushed", repository=repository, digest=digest)

    def cancel_upload(self, repository: str, upload: str) -> None:
        """Forget an upload."""
        _upload(lambda: self.blobs.cancel_upload(repository, upload))

    def sweep(self) -> int:
        """Forget uploads nobody wrote to for a day; returns how many. To be called now and then."""
        return self.blobs.expire_uploads(self.clock.now() - timedelta(seconds=UPLOAD_LIFE_SECONDS))

    # ---- manifests -------------------------------------------------------------------------------

    def manifest(self, repository: str, reference: str) -> ManifestRecord:
        """Return a manifest by tag or digest."""
        with self.store.begin(write=False) as work:
            digest = _resolve(work.oci, repository, reference)
            record = work.oci.manifest(repository, digest) if digest else None
        if record is None:
            raise _no_manifest(repository, reference)
        return record

    def put_manifest(
        self,
        repository: str,
        reference: str,
        content: bytes,
        media_type: str,
        *,
        tags: Sequence[str] = (),
    ) -> ManifestRecord:
        """Store a manifest under a tag or its digest, and under more `tags`."""
        manifest = parse_manifest(content, media_type)
        record = manifest.record
        wanted = [parse_tag(tag) for tag in tags]
        if ":" not in reference:
            wanted.append(parse_tag(reference))
        elif parse_oci_digest(reference) != record.digest:
            raise DistributionError(
                f"the manifest has the digest '{record.digest}', not '{reference}'",
                oci=OciCode.DIGEST_INVALID,
                status=400,
                code=Code.DIGEST_MISMATCH,
            )
        with self.store.begin() as work:
            store_manifest(work, self.blobs, repository, manifest, wanted)
            work.commit()
        _log.info(
            "registry.manifest-pushed", repository=repository, digest=record.digest, tags=wanted
        )
        return record

    def delete_manifest(self, repository: str, reference: str) -> None:
        """Remove a tag, or a manifest by digest together with the tags that name it."""
        with self.store.begin() as work:
            if ":" in reference:
                gone = work.oci.delete_manifest(repository, parse_oci_digest(reference))
            else:
                gone = work.oci.delete_tag(repository, parse_tag(reference))
            if not gone:
                raise _no_manifest(repository, reference)
            work.commit()
        _log.info("registry.manifest-deleted", repository=repository, reference=reference)

    def tags(self, repository: str, *, last: str = "", limit: int | None = None) -> TagPage:
        """Return tags in lexical order beyond `last`, at most `MAX_PAGE` of them."""
        wanted = MAX_PAGE if limit is None else max(0, min(limit, MAX_PAGE))
        with self.store.begin(write=False) as work:
            found = tuple(work.oci.tags(repository, last=last, limit=wanted + 1))
            if not found and repository not in work.oci.repositories():
                raise _unknown(OciCode.NAME_UNKNOWN, f"no repository '{repository}'")
        return TagPage(found[:wanted], more=len(found) > wanted)

    def referrers(self, repository: str, subject: Digest) -> Sequence[ManifestRecord]:
        """Return the manifests that refer to `subject`, which need not exist."""
        with self.store.begin(write=False) as work:
            return work.oci.referrers(repository, subject)


def _resolve(index: OciIndex, repository: str, reference: str) -> Digest | None:
    if ":" in reference:
        return parse_oci_digest(reference)
    return index.tag(repository, parse_tag(reference))


def _upload(call: Callable[[], Result]) -> Result:
    try:
        return call()
    except FleetError as error:
        match error.code:
            case Code.BLOB_UNKNOWN:
                oci, status = OciCode.BLOB_UPLOAD_UNKNOWN, 404
            case Code.STATE_CONFLICT:
                oci, status = OciCode.BLOB_UPLOAD_INVALID, 409
            case Code.DIGEST_MISMATCH:
                oci, status = OciCode.DIGEST_INVALID, 400
            case _:
                raise
        raise DistributionError(str(error), oci=oci, status=status, code=error.code) from error


def _unknown(oci: OciCode, message: str) -> DistributionError:
    return DistributionError(message, oci=oci, status=404, code=Code.BLOB_UNKNOWN)


def _no_manifest(repository: str, reference: str) -> DistributionError:
    return DistributionError(
        f"no manifest '{reference}' in '{repository}'",
        oci=OciCode.MANIFEST_UNKNOWN,
        status=404,
        code=Code.IMAGE_UNKNOWN,
    )
