"""Rules of the OCI distribution specification that need no disk: manifests, ranges, its errors.

Decides what a manifest must be to be accepted and which part of a blob a header asks for. Must not
know HTTP frameworks; bytes and blobs reach it through ports only. Digests are sha256 only for now.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from hub.core.oci import ManifestRecord
from hub.core.ports import Blobs, UnitOfWork
from protocol.errors import Code, FleetError, InvalidError
from protocol.ids import Digest, digest_of, parse_digest
from protocol.strict_json import parse_object

MANIFEST_LIMIT = 4 * 1024 * 1024
MAX_DESCRIPTORS = 4096
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
_IMAGES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
_INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
_ELSEWHERE = re.compile(
    r"application/vnd\.(oci\.image\.layer\.nondistributable\.|docker\.image\.rootfs\.foreign\.)\S+"
)
_RANGE = re.compile(r"bytes=(?P<first>\d{0,18})-(?P<last>\d{0,18})")
_CONTENT_RANGE = re.compile(r"(?:bytes )?(?P<first>\d{1,18})-(?P<last>\d{1,18})(?:/(?:\d+|\*))?")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")


class OciCode(StrEnum):
    """The error codes of the specification."""

    BLOB_UNKNOWN = "BLOB_UNKNOWN"
    BLOB_UPLOAD_INVALID = "BLOB_UPLOAD_INVALID"
    BLOB_UPLOAD_UNKNOWN = "BLOB_UPLOAD_UNKNOWN"
    DIGEST_INVALID = "DIGEST_INVALID"
    MANIFEST_BLOB_UNKNOWN = "MANIFEST_BLOB_UNKNOWN"
    MANIFEST_INVALID = "MANIFEST_INVALID"
    MANIFEST_UNKNOWN = "MANIFEST_UNKNOWN"
    NAME_INVALID = "NAME_INVALID"
    NAME_UNKNOWN = "NAME_UNKNOWN"
    SIZE_INVALID = "SIZE_INVALID"
    UNAUTHORIZED = "UNAUTHORIZED"
    DENIED = "DENIED"
    UNSUPPORTED = "UNSUPPORTED"
    TOOMANYREQUESTS = "TOOMANYREQUESTS"


class DistributionError(FleetError):
    """A refusal in the words of the registry protocol.

    Attributes:
        oci: Its code there.
        status: The status of the answer.
    """

    def __init__(self, message: str, *, oci: OciCode, status: int, code: Code) -> None:
        """Name the refusal in both vocabularies."""
        super().__init__(message, code=code, hint="see the distribution specification")
        self.oci = oci
        self.status = status


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that is well formed, and what must exist before it may be stored.

    Attributes:
        blobs: Digest and size of each blob it names.
        children: Digests of the manifests it names.
    """

    record: ManifestRecord
    blobs: tuple[tuple[Digest, int], ...]
    children: tuple[Digest, ...]


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `first` up to and with `last` of a blob."""

    first: int
    last: int

    @property
    def length(self) -> int:
        """How many bytes they are."""
        return self.last - self.first + 1


def parse_manifest(content: bytes, media_type: str) -> Manifest:
    """Read a pushed manifest.

    Args:
        content: The exact bytes.
        media_type: What it is said to be; parameters are ignored, empty means: as it says itself.

    Raises:
        DistributionError: MANIFEST_INVALID.
    """
    try:
        document = parse_object(
            content, limit=MANIFEST_LIMIT, code=Code.MANIFEST_INVALID, what="manifest"
        )
    except InvalidError as error:
        status = 413 if error.code is Code.TOO_LARGE else 400
        raise _invalid(str(error), status=status) from error
    kind = _kind(document, media_type.partition(";")[0].strip())
    subject = _subject(document)
    config = document.get("config")
    if kind in _INDEXES:
        blobs: tuple[tuple[Digest, int], ...] = ()
        children = tuple(d for d, _ in _each(document.get("manifests"), "manifests"))
    else:
        blobs = (_descriptor(config, "config"), *_each(document.get("layers", []), "layers"))
        children = ()
    record = ManifestRecord(
        digest=digest_of(content),
        media_type=kind,
        content=content,
        subject=subject,
        artifact_type=_artifact_type(document, config),
        annotations=json.dumps(_annotations(document), sort_keys=True),
    )
    return Manifest(record, blobs, children)


def store_manifest(
    work: UnitOfWork, blobs: Blobs, repository: str, manifest: Manifest, tags: Sequence[str]
) -> None:
    """Put a manifest and its tags into a repository, inside the caller's transaction.

    Raises:
        DistributionError: MANIFEST_BLOB_UNKNOWN for what it names and the repository lacks,
            SIZE_INVALID for a blob that has another size than it says.
    """
    for digest, size in manifest.blobs:
        if not work.oci.has_blob(repository, digest) or not blobs.has(digest):
            raise _missing(digest)
        if blobs.size(digest) != size:
            raise DistributionError(
                f"the manifest gives blob '{digest}' a wrong size",
                oci=OciCode.SIZE_INVALID,
                status=400,
                code=Code.REQUEST_INVALID,
            )
    for child in manifest.children:
        if work.oci.manifest(repository, child) is None:
            raise _missing(child)
    work.oci.put_manifest(repository, manifest.record)
    for tag in tags:
        work.oci.put_tag(repository, tag, manifest.record.digest)


def referrers_index(records: Sequence[ManifestRecord], artifact_type: str | None) -> bytes:
    """Return the image index that lists manifests referring to another."""
    chosen = [r for r in records if not artifact_type or r.artifact_type == artifact_type]
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [_as_descriptor(record) for record in chosen],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def parse_tag(raw: str) -> str:
    """Return `raw` as a tag, or raise DistributionError (MANIFEST_INVALID)."""
    if not _TAG.fullmatch(raw):
        raise _invalid(f"tag {raw[:80]!r} is not valid")
    return raw


def parse_oci_digest(raw: str) -> Digest:
    """Return `raw` as a digest, or raise DistributionError (DIGEST_INVALID)."""
    try:
        return parse_digest(raw)
    except InvalidError as error:
        raise DistributionError(
            f"digest {raw[:100]!r} is not a sha256 digest",
            oci=OciCode.DIGEST_INVALID,
            status=400,
            code=Code.ID_INVALID,
        ) from error


def parse_range(header: str, size: int) -> Span | None:
    """Return the part of a blob that a `Range` header asks for; None asks for all of it.

    Several ranges, other units and malformed headers are ignored, as HTTP allows.

    Raises:
        DistributionError: SIZE_INVALID (416), when the range lies outside the blob.
    """
    found = _RANGE.fullmatch(header.strip())
    if not found or not (found["first"] or found["last"]):
        return None
    if found["first"]:
        first = int(found["first"])
        last = min(int(found["last"]) if found["last"] else size - 1, size - 1)
        if found["last"] and int(found["last"]) < first:
            return None
    else:
        first, last = max(0, size - int(found["last"])), size - 1
    if first > last:
        raise DistributionError(
            f"the blob has {size} bytes",
            oci=OciCode.SIZE_INVALID,
            status=416,
            code=Code.REQUEST_INVALID,
        )
    return Span(first, last)


def parse_content_range(header: str) -> Span:
    """Return the part of an upload that a chunk says it is.

    Raises:
        DistributionError: BLOB_UPLOAD_INVALID.
    """
    found = _CONTENT_RANGE.fullmatch(header.strip())
    if not found or int(found["last"]) < int(found["first"]):
        raise DistributionError(
            f"content range {header[:80]!r} cannot be read",
            oci=OciCode.BLOB_UPLOAD_INVALID,
            status=400,
            code=Code.REQUEST_INVALID,
        )
    return Span(int(found["first"]), int(found["last"]))


def _kind(document: Mapping[str, Any], announced: str) -> str:
    own = document.get("mediaType", announced)
    kind = announced or own
    if own != kind:
        raise _invalid(f"the manifest says it is {own!r}, the request says {kind!r}")
    if not isinstance(kind, str) or kind not in _IMAGES | _INDEXES:
        raise _invalid(f"manifests of the type {str(kind)[:120]!r} are not accepted")
    if document.get("schemaVersion") != 2:  # noqa: PLR2004 - the one version there is
        raise _invalid("the manifest's schema version is not 2")
    return kind


def _subject(document: Mapping[str, Any]) -> Digest | None:
    return _descriptor(document["subject"], "subject")[0] if document.get("subject") else None


def _each(value: object, what: str) -> Iterator[tuple[Digest, int]]:
    if not isinstance(value, list) or len(value) > MAX_DESCRIPTORS:
        raise _invalid(f"the manifest's {what!r} is not a list of at most {MAX_DESCRIPTORS}")
    for number, item in enumerate(value):
        if isinstance(item, dict) and _ELSEWHERE.fullmatch(str(item.get("mediaType"))):
            continue
        yield _descriptor(item, f"{what}[{number}]")


def _descriptor(value: object, what: str) -> tuple[Digest, int]:
    if not isinstance(value, dict):
        raise _invalid(f"the manifest's {what!r} is not a descriptor")
    size = value.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise _invalid(f"the manifest's {what!r} has no size")
    try:
        return parse_digest(str(value.get("digest"))), size
    except InvalidError as error:
        raise _invalid(f"the manifest's {what!r} has no sha256 digest") from error


def _artifact_type(document: Mapping[str, Any], config: object) -> str:
    fallback = config.get("mediaType", "") if isinstance(config, dict) else ""
    return str(document.get("artifactType") or fallback)


def _annotations(document: Mapping[str, Any]) -> dict[str, str]:
    value = document.get("annotations") or {}
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise _invalid("the manifest's 'annotations' are not a map of strings")
    return value


def _as_descriptor(record: ManifestRecord) -> dict[str, Any]:
    out: dict[str, Any] = {
        "mediaType": record.media_type,
        "digest": record.digest,
        "size": len(record.content),
    }
    if record.artifact_type:
        out["artifactType"] = record.artifact_type
    if annotations := json.loads(record.annotations):
        out["annotations"] = annotations
    return out


def _invalid(message: str, *, status: int = 400) -> DistributionError:
    return DistributionError(
        message, oci=OciCode.MANIFEST_INVALID, status=status, code=Code.REQUEST_INVALID
    )


def _missing(digest: Digest) -> DistributionError:
    return DistributionError(
        f"the repository has no '{digest}', which the manifest names",
        oci=OciCode.MANIFEST_BLOB_UNKNOWN,
        status=400,
        code=Code.BLOB_UNKNOWN,
    )
