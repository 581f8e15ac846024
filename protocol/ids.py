"""Names and digests: parsed once at the door, trusted after."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import NewType

from protocol.errors import Code, InvalidError

DeviceId = NewType("DeviceId", str)
ModuleName = NewType("ModuleName", str)
Digest = NewType("Digest", str)

_DEVICE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_MODULE = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9._-]{0,126}[a-zA-Z0-9])?")
_DEPLOYMENT = re.compile(r"[a-z0-9](?:[a-z0-9:+%_#*?!(),=@;$'.-]{0,127})")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REPOSITORY = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
)
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_AUTHORITY = re.compile(r"(?:[a-zA-Z0-9.-]+|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")
_REPOSITORY_LIMIT = 255


def _refuse(kind: str, raw: str, rule: str) -> InvalidError:
    return InvalidError(f"{kind} {raw[:80]!r} is not valid", code=Code.ID_INVALID, hint=rule)


def parse_device_id(raw: str) -> DeviceId:
    """Return `raw` as a device id, or raise InvalidError (`id-invalid`).

    The alphabet is narrow because the id stands in MQTT topics and access patterns.
    """
    if not _DEVICE.fullmatch(raw):
        raise _refuse("device id", raw, "use 1-64 of a-z, 0-9 and '-', no '-' at either end")
    return DeviceId(raw)


def parse_module_name(raw: str) -> ModuleName:
    """Return `raw` as a module name, or raise InvalidError (`id-invalid`)."""
    if not _MODULE.fullmatch(raw):
        raise _refuse("module name", raw, "use 1-128 of a-z, A-Z, 0-9, '_' and '-'")
    return ModuleName(raw)


def parse_model_name(raw: str) -> str:
    """Return `raw` as a model name, or raise InvalidError (`id-invalid`)."""
    if not _NAME.fullmatch(raw):
        raise _refuse("model name", raw, "use letters, digits, '.', '_' and '-'")
    return raw


def parse_deployment_id(raw: str) -> str:
    """Return `raw` as a deployment id, or raise InvalidError (`id-invalid`)."""
    if not _DEPLOYMENT.fullmatch(raw):
        raise _refuse("deployment id", raw, "use 1-128 of a-z, 0-9 and -:+%_#*?!(),=@;$'.")
    return raw


def parse_repository(raw: str) -> str:
    """Return `raw` as an image repository name (distribution-spec), or raise InvalidError."""
    if len(raw) > _REPOSITORY_LIMIT or not _REPOSITORY.fullmatch(raw):
        raise _refuse("image name", raw, "use a-z, 0-9 with '.', '_', '-' or '/' between them")
    return raw


def parse_digest(raw: str) -> Digest:
    """Return `raw` as a `sha256:` digest, or raise InvalidError (`id-invalid`)."""
    if not _DIGEST.fullmatch(raw):
        raise _refuse("digest", raw, "use 'sha256:' and 64 lower-case hexadecimal digits")
    return Digest(raw)


def digest_of(data: bytes) -> Digest:
    """Return the sha256 digest of `data`."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image name as container tools write it: `authority/repository[:tag][@digest]`.

    `authority` is empty when the reference names no registry.
    """

    authority: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    def __str__(self) -> str:
        """Return the reference as it is written."""
        name = f"{self.authority}/{self.repository}" if self.authority else self.repository
        tag = f":{self.tag}" if self.tag else ""
        return f"{name}{tag}" + (f"@{self.digest}" if self.digest else "")

    @property
    def reference(self) -> str:
        """The digest if there is one, else the tag, else `latest`: what a registry is asked for."""
        return self.digest or self.tag or "latest"

    def pinned(self, digest: Digest) -> ImageRef:
        """Return the same name by digest, without the tag."""
        return ImageRef(self.authority, self.repository, None, digest)


def parse_image_ref(raw: str) -> ImageRef:
    """Split an image reference, or raise InvalidError (`id-invalid`)."""
    rest, at, digest = raw.partition("@")
    first, slash, remainder = rest.partition("/")
    has_authority = bool(slash) and ("." in first or ":" in first or first == "localhost")
    authority, path = (first, remainder) if has_authority else ("", rest)
    repository, colon, tag = path.partition(":")
    well_formed = (
        (not authority or _AUTHORITY.fullmatch(authority))
        and _REPOSITORY.fullmatch(repository)
        and (not colon or _TAG.fullmatch(tag))
        and (not at or _DIGEST.fullmatch(digest))
    )
    if not well_formed or len(repository) > _REPOSITORY_LIMIT:
        raise _refuse("image", raw, "write it as 'registry:port/name:tag' or 'name@sha256:...'")
    return ImageRef(authority, repository, tag or None, Digest(digest) if digest else None)


def parse_version_ref(raw: str) -> tuple[str, int | None]:
    """Split `name:version` into its parts; the version is None when it is left out.

    Raises:
        InvalidError: `id-invalid`, when the name is malformed or the version is not 1, 2, 3, ...
    """
    name, colon, version = raw.partition(":")
    if colon and not _VERSION.fullmatch(version):
        raise _refuse("version", version, "versions count from 1: write 'name' or 'name:3'")
    return parse_model_name(name), int(version) if colon else None
