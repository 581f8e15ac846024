"""Layers are the same bytes for the same content."""

import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.adapters.packaging.tar_layers import (
    Entry,
    bytes_entry,
    open_plain_tar,
    plain_layer,
    write_layer,
)
from hub.core.packaging import LayerKind

ENTRIES = [
    bytes_entry("b/run", b"#!", executable=True),
    bytes_entry("a/deep/file", b"x" * 1000),
    Entry("link", link="a/deep"),
    Entry("tmp", mode=0o1777),
]


def nothing() -> None:
    """Check nothing."""


def test_order_and_time_of_writing_do_not_matter(tmp_path: Path) -> None:
    first = write_layer(tmp_path / "1", LayerKind.CODE, ENTRIES, check=nothing)
    second = write_layer(tmp_path / "2", LayerKind.CODE, ENTRIES[::-1], check=nothing)

    assert first == second
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_digests_are_those_of_the_file_and_of_the_tar(tmp_path: Path) -> None:
    layer = write_layer(tmp_path / "1", LayerKind.CODE, ENTRIES, check=nothing)
    packed = (tmp_path / "1").read_bytes()

    assert layer.digest == "sha256:" + hashlib.sha256(packed).hexdigest()
    assert layer.diff_id == "sha256:" + hashlib.sha256(gzip.decompress(packed)).hexdigest()
    assert layer.size == len(packed)


def test_other_tools_read_the_tar(tmp_path: Path) -> None:
    write_layer(tmp_path / "1", LayerKind.CODE, ENTRIES, check=nothing)
    with tarfile.open(tmp_path / "1") as archive:
        rows = [(m.name, m.mode, m.type, m.mtime, m.uid) for m in archive]

    assert rows == [
        ("a", 0o755, tarfile.DIRTYPE, 0, 0),
        ("a/deep", 0o755, tarfile.DIRTYPE, 0, 0),
        ("a/deep/file", 0o644, tarfile.REGTYPE, 0, 0),
        ("b", 0o755, tarfile.DIRTYPE, 0, 0),
        ("b/run", 0o755, tarfile.REGTYPE, 0, 0),
        ("link", 0o777, tarfile.SYMTYPE, 0, 0),
        ("tmp", 0o1777, tarfile.DIRTYPE, 0, 0),
    ]


@given(st.lists(st.binary(max_size=1500), max_size=4), st.integers(1, 4000))
def test_a_plain_tar_is_read_as_it_was_announced(contents: list[bytes], step: int) -> None:
    entries = [bytes_entry(f"f{number}", data) for number, data in enumerate(contents)]
    layer = plain_layer(LayerKind.MODEL, entries, check=nothing)
    with open_plain_tar(entries) as stream:
        pieces = b"".join(iter(lambda: stream.read(step), b""))
        stream.seek(0)
        again = stream.read()

    assert pieces == again
    assert len(pieces) == layer.size
    assert layer.digest == "sha256:" + hashlib.sha256(pieces).hexdigest()


def test_a_file_that_shrinks_is_noticed() -> None:
    lying = Entry("f", lambda: io.BytesIO(b"short"), 100)

    with pytest.raises(RuntimeError, match="shorter"):
        plain_layer(LayerKind.MODEL, [lying], check=nothing)
