"""Ranges and manifests as pure functions."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core.distribution import (
    OCI_INDEX,
    OCI_MANIFEST,
    DistributionError,
    parse_content_range,
    parse_manifest,
    parse_range,
)

NUMBERS = st.integers(0, 200)


@given(size=NUMBERS, first=NUMBERS, last=NUMBERS)
def test_a_range_is_never_outside_the_blob(size: int, first: int, last: int) -> None:
    for header in (f"bytes={first}-{last}", f"bytes={first}-", f"bytes=-{last}"):
        with contextlib.suppress(DistributionError):
            span = parse_range(header, size)
            assert span is None or 0 <= span.first <= span.last < size


@given(header=st.text(), size=NUMBERS)
def test_no_header_breaks_the_reader(header: str, size: int) -> None:
    with contextlib.suppress(DistributionError):
        parse_range(header, size)
    with contextlib.suppress(DistributionError):
        parse_content_range(header)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
)
FIELDS = st.dictionaries(
    st.sampled_from(
        ["config", "layers", "manifests", "subject", "annotations", "artifactType", "mediaType"]
    ),
    JSON,
)


@given(fields=FIELDS, announced=st.sampled_from([OCI_MANIFEST, OCI_INDEX, ""]))
def test_any_document_is_read_or_refused(fields: dict[str, object], announced: str) -> None:
    content = json.dumps({"schemaVersion": 2, **fields}).encode()

    with contextlib.suppress(DistributionError):
        assert parse_manifest(content, announced).record.content == content


def test_a_manifest_may_leave_its_type_to_the_request() -> None:
    digest = "sha256:" + "0" * 64
    content = json.dumps(
        {"schemaVersion": 2, "config": {"digest": digest, "size": 2}, "layers": []}
    ).encode()

    record = parse_manifest(content, f"{OCI_MANIFEST}; charset=utf-8").record

    assert record.media_type == OCI_MANIFEST


def test_a_manifest_nested_too_deeply_is_refused() -> None:
    with pytest.raises(DistributionError):
        parse_manifest(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, OCI_MANIFEST)
