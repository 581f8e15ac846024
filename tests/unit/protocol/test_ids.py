"""Names and digests are parsed once: what is accepted, what is refused, what comes back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
import strategies
from hostile import refusal
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Code, InvalidError
from protocol.ids import (
    Digest,
    ImageRef,
    digest_of,
    parse_deployment_id,
    parse_device_id,
    parse_digest,
    parse_image_ref,
    parse_model_name,
    parse_module_name,
    parse_repository,
    parse_version_ref,
)

DIGEST = Digest("sha256:" + "0a" * 32)
PARSERS: list[Callable[[str], object]] = [
    parse_deployment_id,
    parse_device_id,
    parse_digest,
    parse_image_ref,
    parse_model_name,
    parse_module_name,
    parse_repository,
    parse_version_ref,
]


@pytest.mark.parametrize("raw", ["a", "pi-7", "0", "a" * 64, "a--b"])
def test_accepts_device_ids(raw: str) -> None:
    assert parse_device_id(raw) == raw


@pytest.mark.parametrize(
    "raw", ["", "-a", "a-", "A", "a.b", "a/b", "a+b", "#", "a" * 65, "a\n", "ä", "a b"]
)
def test_refuses_device_ids(raw: str) -> None:
    with pytest.raises(InvalidError, match="device id") as caught:
        parse_device_id(raw)
    assert caught.value.code is Code.ID_INVALID


@pytest.mark.parametrize("raw", ["detector", "Detector_2", "-", "a" * 128])
def test_accepts_module_names(raw: str) -> None:
    assert parse_module_name(raw) == raw


@pytest.mark.parametrize("raw", ["", "a b", "$edgeAgent", "a.b", "a" * 129, "a\n"])
def test_refuses_module_names(raw: str) -> None:
    with pytest.raises(InvalidError, match="module name"):
        parse_module_name(raw)


@pytest.mark.parametrize("raw", ["digits", "a.b-c_d", "0", "A" * 128])
def test_accepts_model_names(raw: str) -> None:
    assert parse_model_name(raw) == raw


@pytest.mark.parametrize("raw", ["", ".a", "a-", "a:b", "a/b", "A" * 129])
def test_refuses_model_names(raw: str) -> None:
    with pytest.raises(InvalidError, match="model name"):
        parse_model_name(raw)


@pytest.mark.parametrize("raw", ["all-pis", "a:1", "a" * 128, "x=(y)"])
def test_accepts_deployment_ids(raw: str) -> None:
    assert parse_deployment_id(raw) == raw


@pytest.mark.parametrize("raw", ["", "Upper", "-a", "a/b", "a b", "a" * 129])
def test_refuses_deployment_ids(raw: str) -> None:
    with pytest.raises(InvalidError, match="deployment id"):
        parse_deployment_id(raw)


@pytest.mark.parametrize("raw", ["digits", "vision/detector", "a__b/c--d.e", "a" * 255])
def test_accepts_repositories(raw: str) -> None:
    assert parse_repository(raw) == raw


@pytest.mark.parametrize("raw", ["", "Digits", "a//b", "/a", "a/", "a___b", "-a", "a" * 256])
def test_refuses_repositories(raw: str) -> None:
    with pytest.raises(InvalidError, match="image name"):
        parse_repository(raw)


@given(st.binary())
def test_a_digest_names_its_bytes(data: bytes) -> None:
    assert parse_digest(digest_of(data)) == "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("raw", ["", "sha256:", "sha256:" + "0A" * 32, "md5:" + "00" * 16])
def test_refuses_digests(raw: str) -> None:
    with pytest.raises(InvalidError, match="digest"):
        parse_digest(raw)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("digits", ImageRef("", "digits")),
        ("digits:3", ImageRef("", "digits", "3")),
        ("library/digits:3", ImageRef("", "library/digits", "3")),
        ("r.example/vision/d:7", ImageRef("r.example", "vision/d", "7")),
        ("localhost/d", ImageRef("localhost", "d")),
        ("127.0.0.1:5000/d:1", ImageRef("127.0.0.1:5000", "d", "1")),
        ("[::1]:5000/d", ImageRef("[::1]:5000", "d")),
        (f"d@{DIGEST}", ImageRef("", "d", None, DIGEST)),
        (f"h:1/d:2@{DIGEST}", ImageRef("h:1", "d", "2", DIGEST)),
    ],
)
def test_splits_image_references(raw: str, expected: ImageRef) -> None:
    assert parse_image_ref(raw) == expected


@given(strategies.image_refs)
def test_an_image_reference_comes_back(ref: ImageRef) -> None:
    assert parse_image_ref(str(ref)) == ref


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "d@",
        "d:",
        "h:1/",
        "Digits",
        "h:port/d",
        "h:\u0663/d",
        "d:a b",
        "d:a:b",
        "d@sha256:00",
        "h_x.y/d",
        "d" * 256,
        "d:" + "t" * 129,
    ],
)
def test_refuses_image_references(raw: str) -> None:
    with pytest.raises(InvalidError, match="image"):
        parse_image_ref(raw)


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        (ImageRef("", "d"), "latest"),
        (ImageRef("", "d", "3"), "3"),
        (ImageRef("", "d", "3", DIGEST), DIGEST),
    ],
)
def test_a_registry_is_asked_for_the_most_exact_part(ref: ImageRef, expected: str) -> None:
    assert ref.reference == expected


def test_pinning_replaces_the_tag_by_the_digest() -> None:
    assert ImageRef("h:1", "d", "3").pinned(DIGEST) == ImageRef("h:1", "d", None, DIGEST)


@pytest.mark.parametrize(
    ("raw", "expected"), [("digits", ("digits", None)), ("digits:3", ("digits", 3))]
)
def test_splits_versions(raw: str, expected: tuple[str, int | None]) -> None:
    assert parse_version_ref(raw) == expected


@pytest.mark.parametrize(
    "raw", ["d:", "d:0", "d:-1", "d:x", "d:\u0661", "d:1:2", ":1", "d:" + "9" * 9999]
)
def test_refuses_versions(raw: str) -> None:
    with pytest.raises(InvalidError) as caught:
        parse_version_ref(raw)
    assert caught.value.code is Code.ID_INVALID


@pytest.mark.parametrize("parse", PARSERS)
@given(raw=st.text(max_size=40))
def test_any_text_is_accepted_or_refused_by_code(parse: Callable[[str], object], raw: str) -> None:
    assert refusal(parse, raw) in {None, Code.ID_INVALID}


@pytest.mark.parametrize("parse", PARSERS)
def test_a_refusal_quotes_a_bounded_part(parse: Callable[[str], object]) -> None:
    with pytest.raises(InvalidError) as caught:
        parse("/" * 100_000)
    assert len(str(caught.value)) < 150
