"""Images on this device's disk: documents by digest, layers unpacked once, one folder per image.

Decides what counts as whole (only what a synced record says), what is shared, and what may be
removed. Fetches nothing and runs nothing. Methods block; callers use threads.

    blobs/<hex>      manifests and configurations
    partial/<hex>    layers on their way
    layers/<hex>/    layers, unpacked, read-only files
    rootfs/<hex>/    images put together, by digest of the manifest that was asked for
    images.json      which images are whole, and which are being pulled
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from agent.adapters.durable_files import (
    disk_errors,
    sync_filesystem,
    write_atomically,
)
from agent.adapters.images.documents import Descriptor, ImageConfig, Manifest, parse_config
from agent.adapters.images.rootfs import assemble
from agent.adapters.images.unpack import Quota, unpack_layer
from protocol.errors import Code, DeviceError
from protocol.ids import Digest

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_HEADROOM = 64 * 1024 * 1024


class ImageRecord(msgspec.Struct, frozen=True, rename="camel"):
    """One image as the store keeps it.

    Attributes:
        reference: Name it was pulled by, for people.
        config: Digest of its configuration.
        documents: Digests of every document it needs.
        layers: Digests of its unpacked layers, lowest first.
    """

    reference: str
    config: str
    documents: list[str]
    layers: list[str]


class _Index(msgspec.Struct, rename="camel"):
    boot_id: str = ""
    whole: dict[str, ImageRecord] = {}
    pending: dict[str, ImageRecord] = {}


def boot_id() -> str:
    """Return the identity of this boot of the machine."""
    return _BOOT_ID.read_text().strip()


class ImageStore:
    """The images of one device, or of all simulated devices of one process.

    Args:
        root: Folder that belongs to this store alone; made if missing.
        quota: Most one layer may unpack to.
    """

    def __init__(self, root: Path, *, quota: Quota | None = None) -> None:
        self._root = root
        self._quota = quota or Quota()
        for name in ("blobs", "partial", "layers", "rootfs"):
            (root / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        self._index = self._load()
        self._sweep()

    # ---- what is there --------------------------------------------------------------------------

    def images(self) -> frozenset[str]:
        """Return the digests of whole images."""
        return frozenset(self._index.whole)

    def rootfs(self, image: Digest) -> Path:
        """Return the folder of a whole image.

        Raises:
            DeviceError: `image-unavailable`, when it was not pulled.
        """
        self._record(image)
        return self._root / "rootfs" / _hex(image)

    def config(self, image: Digest) -> ImageConfig:
        """Return the configuration of a whole image.

        Raises:
            DeviceError: `image-unavailable`, when it was not pulled.
        """
        record = self._record(image)
        return parse_config((self._root / "blobs" / _hex(record.config)).read_bytes())

    def has_layer(self, layer: Descriptor) -> bool:
        """Tell whether a layer is unpacked."""
        return self._layer(layer.digest).is_dir()

    def partial(self, layer: Descriptor) -> Path:
        """Return the file a layer is received in."""
        return self._root / "partial" / _hex(layer.digest)

    # ---- bringing an image ----------------------------------------------------------------------

    def begin(
        self, image: Digest, reference: str, documents: dict[str, bytes], manifest: Manifest
    ) -> list[Descriptor]:
        """Keep the documents of an image and return the layers that are not here yet.

        Until `finish`, or `remove` without this image in `keep`, what was received for it stays.

        Raises:
            DeviceError: `disk-full`, `image-unsuitable` for layers that cannot be unpacked.
        """
        wanted = [layer for layer in manifest.layers if not layer.is_base]
        missing = [layer for layer in _once(wanted) if not self.has_layer(layer)]
        self._check_space(missing)
        for digest, raw in documents.items():
            path = self._root / "blobs" / _hex(digest)
            if not path.exists():
                write_atomically(path, raw)
        self._index.pending[image] = ImageRecord(
            reference=reference,
            config=manifest.config.digest,
            documents=sorted(documents),
            layers=[layer.digest for layer in wanted],
        )
        self._save()
        return missing

    def unpack(self, layer: Descriptor) -> None:
        """Unpack the received file of a layer, already verified, and drop the file.

        Raises:
            DeviceError: `image-unsuitable`, `disk-full`.
        """
        partial, target = self.partial(layer), self._layer(layer.digest)
        temporary = target.with_name(f".{target.name}.new")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(mode=0o755)
        try:
            unpack_layer(partial, temporary, gzip=layer.is_gzip, quota=self._quota)
        except DeviceError:
            shutil.rmtree(temporary, ignore_errors=True)
            partial.unlink(missing_ok=True)
            raise
        temporary.rename(target)
        partial.unlink()

    def finish(self, image: Digest) -> None:
        """Put the image together, make it durable, then record it as whole.

        Raises:
            DeviceError: `image-unsuitable`, `disk-full`.
        """
        record = self._index.pending[image]
        target = self._root / "rootfs" / _hex(image)
        temporary = target.with_name(f".{target.name}.new")
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        try:
            with disk_errors(record.reference):
                assemble([self._layer(layer) for layer in record.layers], temporary)
                temporary.rename(target)
        except DeviceError:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_filesystem(self._root)
        self._index.whole[image] = record
        del self._index.pending[image]
        self._save()

    # ---- removing -------------------------------------------------------------------------------

    def remove(self, keep: frozenset[str]) -> list[str]:
        """Remove images not in `keep`, and what only they needed; return their digests."""
        gone = [digest for digest in self._index.whole if digest not in keep]
        dropped = [digest for digest in self._index.pending if digest not in keep]
        if not gone and not dropped:
            return []
        for digest in gone:
            del self._index.whole[digest]
        for digest in dropped:
            del self._index.pending[digest]
        self._save()  # first: a half-removed image must never look whole
        self._sweep()
        return gone

    # ---- inside ---------------------------------------------------------------------------------

    def _record(self, image: Digest) -> ImageRecord:
        record = self._index.whole.get(image)
        if record is None:
            raise DeviceError(
                f"image {image!r} is not on this device",
                code=Code.IMAGE_UNAVAILABLE,
                hint="pull it before starting it",
            )
        return record

    def _layer(self, digest: str) -> Path:
        return self._root / "layers" / _hex(digest)

    def _check_space(self, missing: Sequence[Descriptor]) -> None:
        # twice: the file as received, and what it unpacks to
        needed = sum(layer.size for layer in missing) * 2 + _HEADROOM
        free = shutil.disk_usage(self._root).free
        if missing and free < needed:
            raise DeviceError(
                f"the image needs {needed} bytes of disk, {free} are free",
                code=Code.DISK_FULL,
                hint="free some space, or remove modules this device does not need",
            )

    def _load(self) -> _Index:
        path = self._root / "images.json"
        if not path.exists():
            return _Index()
        try:
            return msgspec.json.decode(path.read_bytes(), type=_Index)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return _Index()  # images can be pulled again; a broken record must not stop the device

    def _save(self) -> None:
        self._index.boot_id = boot_id()
        write_atomically(self._root / "images.json", msgspec.json.encode(self._index))

    def _sweep(self) -> None:
        """Remove what no record names, and after a reboot what was never made durable."""
        trusted = [*self._index.whole.values()]
        if self._index.boot_id == boot_id():
            trusted += self._index.pending.values()
        wanted = [*self._index.whole.values(), *self._index.pending.values()]
        blobs = {_hex(digest) for record in wanted for digest in record.documents}
        layers = {_hex(digest) for record in trusted for digest in record.layers}
        received = {_hex(digest) for record in wanted for digest in record.layers}
        _keep_only(self._root / "blobs", blobs)
        _keep_only(self._root / "layers", layers)
        _keep_only(self._root / "partial", received)
        _keep_only(self._root / "rootfs", {_hex(digest) for digest in self._index.whole})


def _keep_only(folder: Path, names: set[str]) -> None:
    with os.scandir(folder) as scan:
        for entry in list(scan):
            if entry.name in names:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                Path(entry.path).unlink()


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _once(layers: Sequence[Descriptor]) -> list[Descriptor]:
    return list({layer.digest: layer for layer in layers}.values())
