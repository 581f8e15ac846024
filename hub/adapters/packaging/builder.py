"""Builds an image: makes or finds its layers, sends what the registry lacks, then the manifest.

Decides the order: what can be refused quickly is checked before anything takes time, and nothing
is visible under a tag before everything is there. Works in a folder of its own that is removed.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from hub.adapters.blobs import disk_errors
from hub.adapters.packaging.bases import BaseImages
from hub.adapters.packaging.budget import Budget
from hub.adapters.packaging.dependencies import (
    Target,
    Uv,
    lock_key,
    pack_site,
    with_server,
)
from hub.adapters.packaging.entry_script import SCRIPT_LIMIT, check_entry_script
from hub.adapters.packaging.layer_cache import LayerCache
from hub.adapters.packaging.tar_layers import (
    Entry,
    file_entry,
    open_plain_tar,
    plain_layer,
    write_layer,
)
from hub.adapters.packaging.untar import ArchiveLimits, stage_archive
from hub.core.distribution import OCI_MANIFEST
from hub.core.image import LayerInfo
from hub.core.packaging import (
    APP_ROOT,
    MODELS_ROOT,
    SERVER_ROOT,
    Base,
    BuiltImage,
    ImageRegistry,
    Layer,
    LayerKind,
    ModelFile,
    Progress,
    Recipe,
    check_recipe,
    check_requirements,
    image_config,
    image_manifest,
)
from hub.core.ports import Blobs, Clock
from protocol.errors import Code, InvalidError
from protocol.ids import Digest, digest_of

TIME_LIMIT_SECONDS = 1800.0
_MIB = 1024 * 1024
_SERVER_SKIPPED = frozenset({"__pycache__", "tests"})


@dataclass(frozen=True, slots=True)
class _Part:
    """A layer and how to open its bytes."""

    layer: Layer
    open: Callable[[], BinaryIO]


@dataclass(frozen=True, slots=True)
class _Work:
    """One build under way."""

    recipe: Recipe
    folder: Path
    budget: Budget
    progress: Progress


@dataclass(frozen=True, slots=True)
class ImageBuilder:
    """Builds images without a container engine. Safe to use from several threads.

    Args:
        blobs: Where models and source archives are.
        cache_dir: Folder for finished layers and for work under way.
        modules_dir: Folder that holds `inference` and `azureml_shim`.
        protocol_dir: Folder of the package `protocol`.
        uv: Resolves and installs dependencies.
        bases: Where base layers come from.
        clock: Where time comes from.
    """

    blobs: Blobs
    cache_dir: Path
    modules_dir: Path
    protocol_dir: Path
    uv: Uv
    bases: BaseImages
    clock: Clock
    limits: ArchiveLimits = field(default_factory=ArchiveLimits)
    time_limit_seconds: float = TIME_LIMIT_SECONDS

    def check(self, recipe: Recipe) -> None:
        """Refuse a recipe whose source or script is wrong, before anything is built.

        Raises:
            FleetError: `id-invalid`, `request-invalid`, `blob-unknown`, `script-invalid`,
                `file-missing`, `too-large`, `disk-full`.
        """
        check_recipe(recipe)
        check_requirements(recipe.requirements or ())
        for model in recipe.models:
            self.blobs.size(model.digest)
        if recipe.code is None:
            return
        budget = Budget(
            self.clock, self.clock.monotonic() + self.time_limit_seconds, threading.Event()
        )
        with disk_errors(), tempfile.TemporaryDirectory() as folder:
            self._stage(recipe.code, str(recipe.entry_script), Path(folder), budget)

    def _stage(self, code: Digest, script: str, staging: Path, budget: Budget) -> list[Entry]:
        """Unpack a source archive and check it."""
        with closing(self.blobs.open(code)) as archive:
            staged = stage_archive(archive, staging, self.limits, check=budget.check)
        _check_code(staged, script)
        return list(staged)

    def build(
        self,
        recipe: Recipe,
        registry: ImageRegistry,
        progress: Progress,
        *,
        stop: threading.Event | None = None,
    ) -> BuiltImage:
        """Build an image and put it into a registry. Blocks: call it from a worker thread.

        Args:
            recipe: What to build.
            registry: Where to put it.
            progress: Told each step, in this thread.
            stop: Set by somebody else to call the build off; it ends within a second or so.

        Raises:
            FleetError: `id-invalid`, `request-invalid`, `blob-unknown`, `script-invalid`,
                `file-missing`, `too-large`, `dependency-unsatisfiable`, `base-unavailable`,
                `build-failed`, `disk-full`, and what the registry raises.
        """
        check_recipe(recipe)
        deadline = self.clock.monotonic() + self.time_limit_seconds
        budget = Budget(self.clock, deadline, stop or threading.Event())
        work_root = self.cache_dir / "work"
        with disk_errors():
            work_root.mkdir(parents=True, exist_ok=True)
            self._sweep(work_root)
            with tempfile.TemporaryDirectory(dir=work_root) as folder:
                work = _Work(recipe, Path(folder), budget, progress)
                return self._publish(work, registry, self._parts(work))

    def _sweep(self, work_root: Path) -> None:
        """Remove what builds left that were killed."""
        limit = self.clock.now().timestamp() - 2 * self.time_limit_seconds
        for folder in work_root.iterdir():
            with suppress(FileNotFoundError):
                if folder.stat().st_mtime < limit:
                    shutil.rmtree(folder, ignore_errors=True)

    def _parts(self, work: _Work) -> list[_Part]:
        recipe = work.recipe
        for model in recipe.models:
            self.blobs.size(model.digest)
        code = [] if recipe.code is None else [self._code(work, recipe.code)]
        base = [] if recipe.base is Base.HOST else [self._base(work)]
        deps = [self._deps(work)]
        server = [self._server(work)]
        models = [self._model(work, model) for model in recipe.models]
        return [*base, *deps, *server, *code, *models]

    def _base(self, work: _Work) -> _Part:
        work.progress("base")
        found = self.bases.obtain(work.recipe.architecture, work.budget, work.progress)
        if found.python_version != work.recipe.python_version:
            raise InvalidError(
                f"the base has python {found.python_version}, "
                f"the image wants {work.recipe.python_version}",
                code=Code.BASE_UNAVAILABLE,
                hint=f"build with python {found.python_version}, or use another base",
            )
        return _file_part(found.layer, found.path)

    def _deps(self, work: _Work) -> _Part:
        recipe = work.recipe
        target = Target(recipe.python_version, recipe.architecture)
        own = None if recipe.requirements is None else check_requirements(recipe.requirements)
        server = (self.modules_dir / "inference" / "requirements.txt").read_text().splitlines()
        wanted = with_server(own, check_requirements(server), has_code=recipe.code is not None)
        work.progress("dependencies: resolving")
        lock = self.uv.lock(wanted, target, work.budget)

        def make(path: Path) -> Layer:
            work.progress("dependencies: installing")
            site = work.folder / "site"
            self.uv.install(lock, site, target, work.budget)
            work.progress("dependencies: packing")
            return pack_site(site, path, work.budget)

        cache = LayerCache(self.cache_dir / "layers")
        return _file_part(*cache.obtain(lock_key(lock, target), make))

    def _server(self, work: _Work) -> _Part:
        work.progress("server")
        root = SERVER_ROOT.lstrip("/")
        entries = [
            *_tree(self.modules_dir / "inference", f"{root}/inference"),
            *_tree(self.modules_dir / "azureml_shim", f"{root}/azureml_shim"),
            # The one rule that device and module share.
            *(
                file_entry(f"{root}/protocol/{name}", self.protocol_dir / name)
                for name in ("__init__.py", "golden.py")
            ),
        ]
        path = work.folder / "server"
        layer = write_layer(path, LayerKind.SERVER, entries, check=work.budget.check)
        return _file_part(layer, path)

    def _code(self, work: _Work, code: Digest) -> _Part:
        work.progress("code")
        staging = work.folder / "source"
        staging.mkdir()
        staged = self._stage(code, str(work.recipe.entry_script), staging, work.budget)
        root = APP_ROOT.lstrip("/")
        entries = [
            Entry(f"{root}/{entry.path}", entry.open, entry.size, entry.executable)
            for entry in staged
        ]
        path = work.folder / "code"
        layer = write_layer(path, LayerKind.CODE, entries, check=work.budget.check)
        return _file_part(layer, path)

    def _model(self, work: _Work, model: ModelFile) -> _Part:
        size = self.blobs.size(model.digest)
        work.progress(f"model {model.ref}: {size / _MIB:.1f} MiB")
        path = f"{model.folder}/{model.filename}".lstrip("/")
        entries = [Entry(path, lambda: self.blobs.open(model.digest), size)]
        layer = plain_layer(LayerKind.MODEL, entries, check=work.budget.check)
        return _Part(layer, lambda: open_plain_tar(entries))

    def _publish(self, work: _Work, registry: ImageRegistry, parts: Sequence[_Part]) -> BuiltImage:
        recipe = work.recipe
        sent = 0
        for part in parts:
            work.budget.check()
            sent += self._send(work, registry, part)
        layers = [part.layer for part in parts]
        config = image_config(recipe, layers)
        config_digest = digest_of(config)
        manifest = image_manifest(config_digest, len(config), layers)
        if not registry.has_blob(recipe.name, config_digest):
            registry.put_blob(recipe.name, io.BytesIO(config), config_digest, len(config))
        work.progress("manifest")
        digest = registry.put_manifest(recipe.name, manifest, OCI_MANIFEST, recipe.tag)
        return BuiltImage(
            name=recipe.name,
            tag=recipe.tag,
            digest=digest,
            config_digest=config_digest,
            layers=tuple(LayerInfo(x.kind.value, x.digest, x.size) for x in layers),
            sent_bytes=sent,
        )

    def _send(self, work: _Work, registry: ImageRegistry, part: _Part) -> int:
        layer, name = part.layer, work.recipe.name
        sources = _Sources(self.cache_dir / "sources", registry.authority)
        there = registry.has_blob(name, layer.digest) or registry.mount_blob(
            name, layer.digest, sources.find(layer.digest)
        )
        if not there:
            work.progress(f"sending {layer.kind.value}: {layer.size / _MIB:.1f} MiB")
            with closing(part.open()) as stream:
                registry.put_blob(name, stream, layer.digest, layer.size)
        if layer.kind in (LayerKind.BASE, LayerKind.DEPS, LayerKind.SERVER):
            sources.remember(layer.digest, name)
        return 0 if there else layer.size


@dataclass(frozen=True, slots=True)
class _Sources:
    """Repositories that were given a layer, by registry: a registry may link it from there."""

    root: Path
    authority: str

    def find(self, digest: Digest) -> str | None:
        path = self._path(digest)
        return path.read_text() if path.is_file() else None

    def remember(self, digest: Digest, repository: str) -> None:
        self.root.mkdir(exist_ok=True)
        self._path(digest).write_text(repository)

    def _path(self, digest: Digest) -> Path:
        return self.root / hashlib.sha256(f"{self.authority} {digest}".encode()).hexdigest()


def _file_part(layer: Layer, path: Path) -> _Part:
    return _Part(layer, lambda: path.open("rb"))


def _check_code(staged: Sequence[Entry], script: str) -> None:
    reserved = MODELS_ROOT.removeprefix(f"{APP_ROOT}/")
    taken = next((e.path for e in staged if e.path.split("/")[0] == reserved), None)
    if taken is not None:
        raise InvalidError(
            f"the source has '{taken}', where models go",
            code=Code.REQUEST_INVALID,
            hint=f"rename the folder '{reserved}' of the source",
        )
    entry = next((e for e in staged if e.path == script), None)
    if entry is None or entry.open is None:
        raise InvalidError(
            f"there is no '{script}' in the source",
            code=Code.FILE_MISSING,
            hint="give the entry script's path relative to the source folder",
        )
    with closing(entry.open()) as file:
        check_entry_script(file.read(SCRIPT_LIMIT + 1), script)


def _tree(source: Path, root: str) -> Iterator[Entry]:
    for path in source.rglob("*"):
        relative = path.relative_to(source)
        skipped = path.suffix == ".pyc" or not _SERVER_SKIPPED.isdisjoint(relative.parts)
        if path.is_file() and not path.is_symlink() and not skipped:
            yield file_entry(f"{root}/{relative.as_posix()}", path)
