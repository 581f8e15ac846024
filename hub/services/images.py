"""Images: package models, follow the building, pin what a manifest names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import structlog

from hub.core.image import Image, ImageState
from hub.core.model import Model
from hub.core.packaging import (
    Architecture,
    Base,
    BuiltImage,
    ImageRegistry,
    ModelFile,
    Progress,
    Recipe,
    check_recipe,
)
from hub.core.ports import Clock, Store
from hub.services.models import ModelService
from protocol.errors import Code, ConflictError, FleetError, InvalidError, NotFoundError
from protocol.ids import (
    ImageRef,
    digest_of,
    parse_digest,
    parse_image_ref,
    parse_repository,
    parse_version_ref,
)

_VERSION_DIGITS = 18  # what a database holds
log = structlog.get_logger()


class Builder(Protocol):
    """Makes an image from a recipe and puts it into a registry. Blocks."""

    def check(self, recipe: Recipe) -> None:
        """Refuse what can be seen to be wrong before anything is built, or return.

        Raises:
            FleetError: `script-invalid`, `file-missing`, `request-invalid`, `too-large`.
        """
        ...

    def build(self, recipe: Recipe, registry: ImageRegistry, progress: Progress) -> BuiltImage:
        """Build and push, telling `progress` each step.

        Raises:
            FleetError: `build-failed`, `dependency-unsatisfiable`, `base-unavailable`, or the
                registry's errors.
        """
        ...


@dataclass(frozen=True, slots=True)
class ImageDraft:
    """What an operator wants packaged.

    Attributes:
        models: `name:version`, or `name` for the newest.
        source: Digest of an uploaded tar of the source folder, or None without code.
        requirements: Lines of pip requirements, or None for what the server itself needs.
    """

    name: str
    models: Sequence[str]
    source: str | None = None
    entry_script: str | None = None
    requirements: Sequence[str] | None = None
    python_version: str = "3.11"
    architecture: Architecture = Architecture.AMD64
    base: Base = Base.DEBIAN
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImageService:
    """Use cases around images.

    `spawn` runs a function later, outside the caller's request, one at a time.
    """

    store: Store
    clock: Clock
    models: ModelService
    builder: Builder
    registry: ImageRegistry
    spawn: Callable[[Callable[[], None]], None]

    def create(self, draft: ImageDraft) -> Image:
        """Begin to build the next version of an image; `get` tells how it goes.

        Raises:
            FleetError: What `Builder.check` refuses, `model-unknown`, `id-invalid`.
        """
        name = parse_repository(draft.name)
        models = [self.models.get(ref) for ref in draft.models]
        recipe = _recipe(draft, name, "1", models)
        check_recipe(recipe)
        self.builder.check(recipe)
        with self.store.begin() as work:
            version = work.images.next_version(name)
            image = Image(
                name=name,
                version=version,
                state=ImageState.BUILDING,
                models=tuple(model.ref for model in models),
                created_at=self.clock.now(),
                architecture=draft.architecture,
                progress="waiting for its turn",
            )
            work.images.put(image)
            work.commit()
        recipe = replace(recipe, tag=str(version))
        log.info("image.requested", image=image.ref, models=image.models)
        self.spawn(lambda: self._build(image, recipe))
        return image

    def _build(self, image: Image, recipe: Recipe) -> None:
        try:
            built = self.builder.build(
                recipe, self.registry, lambda step: self._put(replace(image, progress=step))
            )
        except FleetError as error:
            self._fail(image, error.code, str(error), error.hint or "")
        except Exception:  # a defect in one build must not end the builder
            log.exception("image.crashed", image=image.ref)
            self._fail(image, Code.INTERNAL, "the build failed by a defect", "see the hub's log")
        else:
            ref = ImageRef(self.registry.authority, image.name).pinned(built.digest)
            self._put(
                replace(
                    image,
                    state=ImageState.READY,
                    digest=built.digest,
                    reference=str(ref),
                    layers=built.layers,
                    progress="done",
                )
            )
            log.info("image.built", image=image.ref, digest=built.digest, sent=built.sent_bytes)

    def _fail(self, image: Image, code: Code, message: str, hint: str) -> None:
        self._put(
            replace(
                image,
                state=ImageState.FAILED,
                error_code=code,
                error=message,
                error_hint=hint,
                progress="failed",
            )
        )
        log.warning("image.failed", image=image.ref, code=code, why=message)

    def _put(self, image: Image) -> None:
        with self.store.begin() as work:
            work.images.put(image)
            work.commit()

    def recover(self) -> None:
        """Mark builds that a restart of the hub cut off as failed."""
        for image in self.all():
            if image.state is ImageState.BUILDING:
                why = "the hub was restarted while it was being built"
                self._fail(image, Code.BUILD_FAILED, why, "create it again")

    def get(self, ref: str) -> Image:
        """Return a version (`name:version`) or the newest (`name`).

        Raises:
            InvalidError: `id-invalid`.
            NotFoundError: `image-unknown`.
        """
        name = parse_repository(ref.partition(":")[0])  # unlike a model's it may have slashes
        _, version = parse_version_ref(ref.replace("/", "."))
        with self.store.begin(write=False) as work:
            found = work.images.get(name, version)
        if found is None:
            raise _unknown(ref)
        return found

    def all(self, name: str | None = None) -> Sequence[Image]:
        """Return all versions of all images, or of one."""
        with self.store.begin(write=False) as work:
            return work.images.list(name)

    def pin(self, written: str) -> str:
        """Return an image of a manifest by digest.

        Raises:
            NotFoundError: `image-unknown`.
            ConflictError: `state-conflict`, when it is not ready.
        """
        ref = parse_image_ref(written)
        if ref.authority not in ("", self.registry.authority):
            if ref.digest is None:
                raise InvalidError(
                    f"image {written!r} of another registry is not pinned",
                    code=Code.IMAGE_UNKNOWN,
                    hint="write its digest: 'registry/name@sha256:...'",
                )
            return str(ref.pinned(ref.digest))
        image = self._find(ref)
        if image is not None:
            return _ready(image).reference
        content, _ = self.registry.get_manifest(ref.repository, ref.reference)
        digest = ref.digest or digest_of(content)
        return str(ImageRef(self.registry.authority, ref.repository).pinned(digest))

    def _find(self, ref: ImageRef) -> Image | None:
        """Return the packaged image a reference means, by version or digest."""
        tag = ref.tag or ""
        with self.store.begin(write=False) as work:
            if ref.digest:
                images = work.images.list(ref.repository)
                return next((i for i in images if i.digest == ref.digest), None)
            if tag and not (tag.isdecimal() and len(tag) <= _VERSION_DIGITS):
                return None
            return work.images.get(ref.repository, int(tag) if tag else None)

    def golden(self, written: str) -> Any:
        """Return the golden samples of the one model in an image of ours, or None."""
        image = self._find(parse_image_ref(written))
        if image is None or len(image.models) != 1:
            return None
        return self.models.get(image.models[0]).golden

    def models_in(self, images: Sequence[ImageRef]) -> tuple[str, ...]:
        """Return the models inside images of ours, in order, each once."""
        found = [image.models for ref in images if (image := self._find(ref))]
        return tuple(dict.fromkeys(model for models in found for model in models))


def _recipe(draft: ImageDraft, name: str, tag: str, models: Sequence[Model]) -> Recipe:
    return Recipe(
        name=name,
        tag=tag,
        models=tuple(ModelFile(m.name, m.version, m.filename, m.digest) for m in models),
        code=parse_digest(draft.source) if draft.source else None,
        entry_script=draft.entry_script,
        requirements=None if draft.requirements is None else tuple(draft.requirements),
        python_version=draft.python_version,
        architecture=draft.architecture,
        env=draft.env,
        base=draft.base,
    )


def _ready(image: Image) -> Image:
    if image.state is not ImageState.READY:
        raise ConflictError(
            f"image {image.ref!r} is {image.state.value}"
            + (f": {image.error}" if image.error else ""),
            code=Code.STATE_CONFLICT,
            hint=f"look at it with `rimward image show {image.ref}`",
        )
    return image


def _unknown(ref: str) -> NotFoundError:
    return NotFoundError(
        f"no image {ref!r}", code=Code.IMAGE_UNKNOWN, hint="list them with `rimward image list`"
    )
