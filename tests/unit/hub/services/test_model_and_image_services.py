"""Models, images, operators, uploads: each use case, each refusal, nothing left after one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hub_lab import AUTHORITY, Lab, code_of, make_lab, sha256
from structlog.testing import capture_logs

from hub.adapters.blobs import DiskBlobs
from hub.core.image import Image, ImageState
from hub.services.images import ImageDraft
from hub.services.models import Registration
from hub.services.uploads import UploadService
from protocol.errors import Code, InvalidError
from protocol.ids import Digest, parse_image_ref

GOLDEN = {"samples": [{"input": [1], "expected": [7]}]}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return make_lab(tmp_path)


# ---- models --------------------------------------------------------------------------------------


def test_versions_of_a_model_count_from_1(lab: Lab) -> None:
    with capture_logs() as logs:
        refs = [lab.register(), lab.register(data=b"better"), lab.register("other")]

    assert refs == ["digits:1", "digits:2", "other:1"]
    assert lab.services.models.get("digits").version == 2
    assert lab.services.models.get("digits:1").size == 5
    assert [m.ref for m in lab.services.models.list("digits")] == ["digits:1", "digits:2"]
    assert logs[0] == {
        "event": "model.registered",
        "log_level": "info",
        "model": "digits:1",
        "size": 5,
    }


def test_the_file_of_a_model_is_what_was_uploaded(lab: Lab) -> None:
    model, file = lab.services.models.open(lab.register())

    with file:
        assert (model.digest, file.read()) == (sha256(b"model"), b"model")


@pytest.mark.parametrize(
    ("other", "code"),
    [
        ({"name": "a/b"}, "id-invalid"),
        ({"digest": "sha256:1"}, "id-invalid"),
        ({"digest": sha256(b"nowhere")}, "blob-unknown"),
        ({"filename": ""}, "request-invalid"),
        ({"filename": ".."}, "request-invalid"),
        ({"filename": "a/b"}, "request-invalid"),
        ({"filename": "a\\b"}, "request-invalid"),
        ({"filename": "a\nb"}, "request-invalid"),
        ({"filename": "x" * 256}, "request-invalid"),
        ({"golden": {}}, "golden-invalid"),
        ({"golden": {"samples": []}}, "golden-invalid"),
        ({"golden": {**GOLDEN, "unknown": 1}}, "golden-invalid"),
        ({"golden": {"samples": [{"input": "\ud800", "expected": 1}]}}, "golden-invalid"),
    ],
)
def test_what_cannot_be_registered_leaves_no_version(
    lab: Lab, other: dict[str, Any], code: str
) -> None:
    lab.put_blob(b"model")
    fields: dict[str, Any] = {"name": "digits", "digest": sha256(b"model"), "filename": "m.onnx"}

    assert code_of(lambda: lab.services.models.register(Registration(**(fields | other)))) == code
    assert lab.services.models.list() == []
    assert lab.register() == "digits:1"


@pytest.mark.parametrize(
    ("ref", "code"),
    [
        ("digits", "model-unknown"),
        ("digits:9", "model-unknown"),
        ("digits:0", "id-invalid"),
        ("digits:" + "9" * 30, "id-invalid"),
        ("", "id-invalid"),
    ],
)
def test_models_that_are_not_there(lab: Lab, ref: str, code: str) -> None:
    assert code_of(lambda: lab.services.models.get(ref)) == code
    assert code_of(lambda: lab.services.models.open(ref)) == code


# ---- images --------------------------------------------------------------------------------------


def test_an_image_is_built_outside_the_request(lab: Lab) -> None:
    lab.register()
    image = lab.services.images.create(ImageDraft("team/digits", ["digits"]))

    assert (image.state, image.progress) == (ImageState.BUILDING, "waiting for its turn")
    lab.work_off()
    built = lab.services.images.get("team/digits:1")
    assert (built.state, built.models) == (ImageState.READY, ("digits:1",))
    assert built.reference == f"{AUTHORITY}/team/digits@{built.digest}"
    assert lab.services.images.get("team/digits") == built


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (InvalidError("no wheel", code=Code.BUILD_FAILED, hint="h"), "build-failed", "no wheel"),
        (RuntimeError("bug"), "internal", "the build failed by a defect"),
    ],
)
def test_a_failed_build_says_why_and_the_next_version_is_another(
    lab: Lab, error: Exception, code: str, words: str
) -> None:
    lab.register()
    lab.builder.refusals["build"] = error
    with capture_logs() as logs:
        ref = lab.image()
    lab.builder.refusals.clear()

    image = lab.services.images.get(ref)
    assert (image.state, image.error_code, image.error) == (ImageState.FAILED, code, words)
    assert logs[-1]["event"] == "image.failed"
    assert lab.image() == "digits-image:2"


def test_what_cannot_be_built_leaves_no_version(lab: Lab) -> None:
    lab.register()
    images = lab.services.images
    refusals = [
        (ImageDraft("Not A Name", ["digits"]), "id-invalid"),
        (ImageDraft("x", ["nothing"]), "model-unknown"),
        (ImageDraft("x", ["digits"], source="sha256:1"), "id-invalid"),
        (ImageDraft("x", ["digits"], python_version="2.7"), "request-invalid"),
    ]
    lab.builder.refusals["check"] = InvalidError("no init", code=Code.SCRIPT_INVALID, hint="h")
    refusals.append((ImageDraft("x", ["digits"]), "script-invalid"))

    for draft, code in refusals:
        assert code_of(lambda wanted=draft: images.create(wanted)) == code  # type: ignore[misc]  # bound now
    assert images.all() == []
    assert lab.jobs == []


def test_a_restart_fails_what_was_being_built(lab: Lab) -> None:
    lab.register()
    ready = lab.image()
    cut_off = lab.services.images.create(ImageDraft("digits-image", ["digits"]))
    lab.services.images.recover()

    assert lab.services.images.get(ready).state is ImageState.READY
    assert lab.services.images.get(cut_off.ref).error_code == "build-failed"


@pytest.mark.parametrize(
    "written", ["digits-image", "digits-image:1", f"{AUTHORITY}/digits-image:1"]
)
def test_images_of_ours_are_pinned_however_they_are_written(lab: Lab, written: str) -> None:
    lab.register(golden=GOLDEN)
    image = lab.services.images.get(lab.image())

    images = lab.services.images
    assert images.pin(written) == images.pin(image.reference) == image.reference
    assert images.golden(written) == GOLDEN
    assert images.models_in([parse_image_ref(image.reference)] * 2) == ("digits:1",)


def test_images_pushed_by_others_are_pinned_by_their_tag(lab: Lab) -> None:
    lab.register()
    built = lab.services.images.get(lab.image())
    registry = lab.services.images.registry
    content, kind = registry.get_manifest("digits-image", "1")
    registry.put_manifest("digits-image", content, kind, "stable")

    assert lab.services.images.pin("digits-image:stable") == built.reference
    assert lab.services.images.golden("elsewhere:stable") is None


def test_images_of_other_registries_must_be_pinned_already(lab: Lab) -> None:
    pinned = "registry.example/x@sha256:" + "a" * 64

    assert lab.services.images.pin(pinned) == pinned
    assert code_of(lambda: lab.services.images.pin("registry.example/x:1")) == "image-unknown"


@pytest.mark.parametrize(
    ("ref", "code"),
    [
        ("x", "image-unknown"),
        ("a/b:1", "image-unknown"),
        ("x:0", "id-invalid"),
        ("X", "id-invalid"),
    ],
)
def test_images_that_are_not_there(lab: Lab, ref: str, code: str) -> None:
    assert code_of(lambda: lab.services.images.get(ref)) == code


def test_an_image_that_is_being_built_is_not_deployed(lab: Lab) -> None:
    with lab.store.begin() as work:
        now = lab.clock.now()
        work.images.put(Image("x", 1, ImageState.BUILDING, (), now))
        work.commit()

    assert code_of(lambda: lab.services.images.pin("x:1")) == "state-conflict"


# ---- operators -----------------------------------------------------------------------------------


def test_a_token_says_who_it_is_until_it_expires(lab: Lab) -> None:
    with capture_logs() as logs:
        secret = lab.services.operators.issue("ann")

    assert lab.services.operators.authenticate(secret).name == "ann"
    assert secret not in str(logs)
    lab.clock.advance(365 * 86400)  # type: ignore[attr-defined]  # the clock of tests
    assert code_of(lambda: lab.services.operators.authenticate(secret)) == "token-invalid"


@pytest.mark.parametrize("secret", ["", "rwo_", "rwo_wrong", "wrong", "rwo_\xff\0"])
def test_other_tokens_are_refused(lab: Lab, secret: str) -> None:
    lab.services.operators.issue("ann")

    assert code_of(lambda: lab.services.operators.authenticate(secret)) == "token-invalid"


# ---- uploads -------------------------------------------------------------------------------------


async def pieces(*data: bytes, end: Exception | None = None) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece
    if end:
        raise end


def left_over(lab: Lab) -> list[Path]:
    return [path for path in (lab.folder / "blobs").rglob("*") if path.is_file()]


def test_an_upload_is_stored_under_its_digest(lab: Lab) -> None:
    data = [b"x" * 700_000, b"", b"y" * 700_000]
    digest = sha256(b"".join(data))

    stored = asyncio.run(lab.services.uploads.receive("ann", pieces(*data), digest))

    assert stored == (digest, 1_400_000)
    assert lab.blobs.size(Digest(digest)) == 1_400_000


def test_what_is_there_already_is_not_stored_twice(lab: Lab) -> None:
    digest = lab.put_blob(b"model")

    assert asyncio.run(lab.services.uploads.receive("ann", pieces(b"model"), digest)) == (digest, 5)


def test_a_wrong_digest_or_none_leaves_nothing(lab: Lab) -> None:
    for expected, code in [(sha256(b"other"), "digest-mismatch"), ("sha256:x", "id-invalid")]:
        upload = lab.services.uploads.receive("ann", pieces(b"model"), expected)
        assert code_of(lambda started=upload: asyncio.run(started)) == code  # type: ignore[misc]  # bound now
    assert left_over(lab) == []


def test_a_caller_who_hangs_up_leaves_nothing(lab: Lab) -> None:
    upload = lab.services.uploads.receive(
        "ann", pieces(b"x" * 2_000_000, end=ConnectionError("gone")), sha256(b"")
    )

    with pytest.raises(ConnectionError):
        asyncio.run(upload)
    assert left_over(lab) == []


def test_an_upload_has_a_limit(tmp_path: Path) -> None:
    lab = make_lab(tmp_path)
    uploads = UploadService(DiskBlobs(tmp_path / "blobs", max_blob_bytes=10))
    upload = uploads.receive("ann", pieces(b"x" * 11), sha256(b"x" * 11))

    assert code_of(lambda: asyncio.run(upload)) == "too-large"
    assert left_over(lab) == []
