"""Models: register, list, show, download."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import msgspec
import structlog

from hub.core.model import Model
from hub.core.ports import Blobs, Clock, Store
from protocol.errors import Code, InvalidError, NotFoundError
from protocol.ids import Digest, parse_digest, parse_model_name, parse_version_ref
from protocol.manifest import read_golden

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Registration:
    """What an operator registers: bytes that are already uploaded, and what is known of them."""

    name: str
    digest: str
    filename: str
    framework: str = ""
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    golden: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ModelService:
    """Use cases around models."""

    store: Store
    blobs: Blobs
    clock: Clock

    def register(self, wanted: Registration) -> Model:
        """Make the next version of a model.

        Raises:
            InvalidError: `id-invalid`, `golden-invalid`, `request-invalid` for a file name with a
                path in it.
            NotFoundError: `blob-unknown`, when the bytes were not uploaded.
        """
        name, digest = parse_model_name(wanted.name), parse_digest(wanted.digest)
        _check_filename(wanted.filename)
        _check_golden(wanted.golden)
        size = self.blobs.size(digest)
        if size == 0:
            raise InvalidError(
                f"the file of model {name!r} is empty",
                code=Code.REQUEST_INVALID,
                hint="register the file that was trained and saved",
            )
        with self.store.begin() as work:
            model = Model(
                name=name,
                version=work.models.next_version(name),
                digest=digest,
                size=size,
                filename=wanted.filename,
                created_at=self.clock.now(),
                framework=wanted.framework,
                description=wanted.description,
                tags=wanted.tags,
                golden=wanted.golden,
            )
            work.models.add(model)
            work.commit()
        log.info("model.registered", model=model.ref, size=size)
        return model

    def get(self, ref: str) -> Model:
        """Return a version (`name:version`), or the newest one (`name`).

        Raises:
            InvalidError: `id-invalid`.
            NotFoundError: `model-unknown`.
        """
        name, version = parse_version_ref(ref)
        with self.store.begin(write=False) as work:
            found = work.models.get(name, version)
        if found is None:
            raise NotFoundError(
                f"no model {ref!r}",
                code=Code.MODEL_UNKNOWN,
                hint="list them with `rimward model list`",
            )
        return found

    def list(self, name: str | None = None) -> Sequence[Model]:
        """Return all versions of all models, or of one."""
        with self.store.begin(write=False) as work:
            return work.models.list(name)

    def open(self, ref: str) -> tuple[Model, BinaryIO]:
        """Open a version's file for reading."""
        model = self.get(ref)
        return model, self.blobs.open(Digest(model.digest))


def _check_filename(filename: str) -> None:
    bad = not filename or len(filename) > 255 or filename in (".", "..")  # noqa: PLR2004 - NAME_MAX
    if bad or any(c in "/\\" or ord(c) < 32 for c in filename):  # noqa: PLR2004 - control characters
        raise InvalidError(
            f"file name {filename[:80]!r} is not valid",
            code=Code.REQUEST_INVALID,
            hint="give a plain file name without folders",
        )


def _check_golden(golden: dict[str, Any] | None) -> None:
    if golden is None:
        return
    read_golden(golden)
    try:
        msgspec.json.encode(golden)
    except (UnicodeEncodeError, RecursionError) as error:
        raise InvalidError(
            f"the golden samples cannot be written as JSON: {error}",
            code=Code.GOLDEN_INVALID,
            hint='write {"samples": [{"input": ..., "expected": ...}]}, see docs/manifest.md',
        ) from error
