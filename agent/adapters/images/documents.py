"""Manifests, indexes and configurations of OCI images, parsed from untrusted bytes.

Decides which documents are images this agent understands; opens no connection and no file.
Docker's own media types are read as the OCI ones they became.
"""

from __future__ import annotations

import platform
from typing import Annotated, Any, NoReturn, TypeVar

import msgspec

from protocol.errors import Code, DeviceError, InvalidError
from protocol.ids import Digest
from protocol.strict_json import parse_object

DOCUMENT_LIMIT = 4 * 1024 * 1024
MANIFEST_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
LAYER_ANNOTATION = "io.rimward.layer"
BASE_LAYER = "base"
PYTHON_LABEL = "io.rimward.python"

_PLAIN = frozenset(
    {
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar",
    }
)
_GZIP = frozenset(
    {
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
    }
)
_ARCHITECTURES = {
    "x86_64": "amd64",
    "amd64": "amd64",
    "aarch64": "arm64",
    "arm64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "riscv64": "riscv64",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
}

_Digest = Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}$")]
_Size = Annotated[int, msgspec.Meta(ge=0, lt=2**46)]
_Document = TypeVar("_Document", bound=msgspec.Struct)


class Platform(msgspec.Struct, frozen=True):
    """What machine a manifest is for."""

    architecture: str = ""
    os: str = ""
    variant: str = ""


class Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    """A pointer to content by digest and size."""

    media_type: str
    digest: _Digest
    size: _Size
    annotations: dict[str, str] | None = None
    platform: Platform | None = None

    @property
    def address(self) -> Digest:
        """The digest, parsed."""
        return Digest(self.digest)

    @property
    def is_base(self) -> bool:
        """Whether this layer is the operating system, which a host already has."""
        return (self.annotations or {}).get(LAYER_ANNOTATION) == BASE_LAYER

    @property
    def is_gzip(self) -> bool:
        """Whether this layer is compressed.

        Raises:
            DeviceError: `image-unsuitable`, when it is no layer that can be unpacked here.
        """
        if self.media_type in _PLAIN:
            return False
        if self.media_type in _GZIP:
            return True
        raise DeviceError(
            f"layer {self.digest!r} has the media type {self.media_type[:80]!r}",
            code=Code.IMAGE_UNSUITABLE,
            hint="build the image with tar or gzip layers",
        )


class Manifest(msgspec.Struct, frozen=True, rename="camel"):
    """One image for one kind of machine: its configuration and its layers, lowest first."""

    config: Descriptor
    layers: Annotated[list[Descriptor], msgspec.Meta(max_length=256)]


class Index(msgspec.Struct, frozen=True, rename="camel"):
    """The same image for several kinds of machines."""

    manifests: Annotated[list[Descriptor], msgspec.Meta(max_length=256)]


class ProcessConfig(msgspec.Struct, frozen=True, rename="pascal"):
    """How an image wants to be run."""

    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    env: list[str] | None = None
    working_dir: str | None = None
    labels: dict[str, str] | None = None


class ImageConfig(msgspec.Struct, frozen=True):
    """An image's configuration."""

    architecture: str = ""
    os: str = ""
    config: ProcessConfig = ProcessConfig()

    @property
    def python(self) -> str:
        """The Python minor version the image was built for, like `3.11`; empty if unknown."""
        return (self.config.labels or {}).get(PYTHON_LABEL, "")


def host_architecture() -> str:
    """Return this machine's architecture in the words of OCI images."""
    machine = platform.machine().lower()
    return _ARCHITECTURES.get(machine, machine)


def parse_manifest(raw: bytes) -> Manifest | Index:
    """Return what a registry answered for a manifest.

    Raises:
        FleetError: `image-unsuitable`, when it is neither an image nor an index; `too-large`.
    """
    document = parse_object(
        raw, limit=DOCUMENT_LIMIT, code=Code.IMAGE_UNSUITABLE, what="image manifest"
    )
    if "manifests" in document and "layers" in document:
        raise InvalidError(
            "an image manifest says it is an index too",
            code=Code.IMAGE_UNSUITABLE,
            hint="do not trust where it came from",
        )
    kind: type[Manifest | Index] = Index if "manifests" in document else Manifest
    return _convert(document, kind, "image manifest")


def parse_config(raw: bytes) -> ImageConfig:
    """Return an image's configuration.

    Raises:
        FleetError: `image-unsuitable`, `too-large`.
    """
    document = parse_object(
        raw, limit=DOCUMENT_LIMIT, code=Code.IMAGE_UNSUITABLE, what="image configuration"
    )
    if document.get("config") is None:
        document.pop("config", None)
    return _convert(document, ImageConfig, "image configuration")


def choose_child(index: Index, architecture: str) -> Descriptor:
    """Return the manifest of an index that fits this machine.

    Raises:
        DeviceError: `image-unsuitable`.
    """
    machines = [(child.platform, child) for child in index.manifests if child.platform]
    for machine, child in machines:
        if machine.os == "linux" and machine.architecture == architecture:
            return child
    return _unsuitable(sorted({m.architecture for m, _ in machines}), architecture)


def check_machine(config: ImageConfig, architecture: str) -> None:
    """Refuse an image made for another machine.

    Raises:
        DeviceError: `image-unsuitable`.
    """
    if config.os not in ("", "linux") or config.architecture != architecture:
        _unsuitable([f"{config.os or 'linux'}/{config.architecture}"], architecture)


def _unsuitable(offered: list[str], architecture: str) -> NoReturn:
    raise DeviceError(
        f"the image is for {', '.join(offered)[:200]!r}, this machine is {architecture!r}",
        code=Code.IMAGE_UNSUITABLE,
        hint=f"build the image for {architecture!r} too",
    )


def _convert(document: dict[str, Any], kind: type[_Document], what: str) -> _Document:
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise InvalidError(
            f"{what} cannot be used: {error}",
            code=Code.IMAGE_UNSUITABLE,
            hint="build the image again, or check what was pushed",
        ) from error
