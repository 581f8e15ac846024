from __future__ import annotations

import gzip as gzip_module
import io
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.adapters.images.unpack import Quota, unpack_layer
from protocol.errors import Code, FleetError

SMALL = Quota(bytes=100_000, entries=100)


def member(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def archive(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def unpack(raw: bytes, folder: Path, *, gzip: bool = False, quota: Quota = SMALL) -> Path:
    target = folder / "outer" / "target"
    target.mkdir(parents=True)
    (folder / "layer").write_bytes(raw)
    unpack_layer(folder / "layer", target, gzip=gzip, quota=quota)
    return target


def tree(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        found[name] = "link" if path.is_symlink() else "folder" if path.is_dir() else "file"
    return found


def header(name: bytes, *, size: bytes = b"00000000000", kind: bytes = b"0") -> bytes:
    """A raw header with a right checksum, for what tarfile would not write."""
    block = name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + size + b"\0"
    block += b"00000000000\0" + b" " * 8 + kind + b"\0" * 100 + b"ustar\x0000"
    block = block.ljust(512, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def negative(size: int) -> bytes:
    return header(b"f", size=b"\xff" + (size % 2**80).to_bytes(10, "big"))


END = bytes(1024)
CHANCE = random.Random(1)  # noqa: S311 - repeatable, not secret
NOISE = CHANCE.randbytes(4096)


def test_files_and_folders_are_unpacked_read_only(tmp_path: Path) -> None:
    raw = archive(
        member("app", type=tarfile.DIRTYPE, mode=0o700),
        member("app/run.sh", b"#!/bin/sh", mode=0o4755),
        member("lib/deep/data.bin", b"data", mode=0o666),
    )

    target = unpack(raw, tmp_path)

    assert tree(target) == {
        "app": "folder",
        "app/run.sh": "file",
        "lib": "folder",
        "lib/deep": "folder",
        "lib/deep/data.bin": "file",
    }
    assert (target / "app/run.sh").stat().st_mode & 0o7777 == 0o555
    assert (target / "lib/deep/data.bin").stat().st_mode & 0o7777 == 0o444
    assert (target / "lib/deep/data.bin").read_bytes() == b"data"


def test_gzip_layers_are_unpacked(tmp_path: Path) -> None:
    raw = gzip_module.compress(archive(member("a", b"data")))

    assert (unpack(raw, tmp_path, gzip=True) / "a").read_bytes() == b"data"


def test_an_empty_layer_is_a_layer(tmp_path: Path) -> None:
    assert tree(unpack(END, tmp_path)) == {}


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_are_read(tmp_path: Path, form: int) -> None:
    name = "/".join(["n" * 60] * 4)

    assert (unpack(archive(member(name, b"x"), form=form), tmp_path) / name).read_bytes() == b"x"


def test_links_inside_are_kept(tmp_path: Path) -> None:
    raw = archive(
        member("lib/real", b"data"),
        member("lib/link", type=tarfile.SYMTYPE, linkname="real"),
        member("app/up", type=tarfile.SYMTYPE, linkname="../lib/real"),
        member("app/absolute", type=tarfile.SYMTYPE, linkname="/lib/real"),
        member("lib/hard", type=tarfile.LNKTYPE, linkname="lib/real"),
    )

    target = unpack(raw, tmp_path)

    for name in ("lib/link", "app/up", "app/absolute", "lib/hard"):
        assert (target / name).resolve().is_relative_to(target)
        assert (target / name).read_bytes() == b"data"


HOSTILE: dict[str, Callable[[], bytes]] = {
    "parent": lambda: archive(member("../escape", b"x")),
    "parent inside": lambda: archive(member("a/../../escape", b"x")),
    "parent that stays": lambda: archive(member("a/../b", b"x")),
    "absolute": lambda: archive(member("/escape", b"x")),
    "double slash": lambda: archive(member("//escape", b"x")),
    "link outside": lambda: archive(member("l", type=tarfile.SYMTYPE, linkname="../x")),
    "deep link outside": lambda: archive(
        member("a/b/l", type=tarfile.SYMTYPE, linkname="../../../x")
    ),
    "link down and out": lambda: archive(member("l", type=tarfile.SYMTYPE, linkname="a/../../x")),
    "write through a link": lambda: archive(
        member("real", type=tarfile.DIRTYPE),
        member("l", type=tarfile.SYMTYPE, linkname="real"),
        member("l/file", b"x"),
    ),
    "write over a link": lambda: archive(
        member("l", type=tarfile.SYMTYPE, linkname="real"), member("l", b"x")
    ),
    "folder over a link": lambda: archive(
        member("real", type=tarfile.DIRTYPE),
        member("l", type=tarfile.SYMTYPE, linkname="real"),
        member("l", type=tarfile.DIRTYPE),
    ),
    "hard link outside": lambda: archive(member("h", type=tarfile.LNKTYPE, linkname="../../layer")),
    "absolute hard link": lambda: archive(
        member("h", type=tarfile.LNKTYPE, linkname="/etc/passwd")
    ),
    "hard link to nothing": lambda: archive(member("h", type=tarfile.LNKTYPE, linkname="gone")),
    "hard link through a link": lambda: archive(
        member("d/f", b"x"),
        member("l", type=tarfile.SYMTYPE, linkname="d"),
        member("h", type=tarfile.LNKTYPE, linkname="l/f"),
    ),
    "hard link to a link": lambda: archive(
        member("l", type=tarfile.SYMTYPE, linkname="f"),
        member("h", type=tarfile.LNKTYPE, linkname="l"),
    ),
    "hard link to a folder": lambda: archive(
        member("d", type=tarfile.DIRTYPE), member("h", type=tarfile.LNKTYPE, linkname="d")
    ),
    "character device": lambda: archive(member("null", type=tarfile.CHRTYPE, devmajor=1)),
    "block device": lambda: archive(member("sda", type=tarfile.BLKTYPE, devmajor=8)),
    "pipe": lambda: archive(member("pipe", type=tarfile.FIFOTYPE)),
    "unknown type": lambda: header(b"odd", kind=b"Z") + END,
    "sparse": lambda: header(b"sparse", kind=b"S") + END,
    "same file twice": lambda: archive(member("a", b"1"), member("a", b"2")),
    "file over a folder": lambda: archive(member("a", type=tarfile.DIRTYPE), member("a", b"2")),
    "folder over a file": lambda: archive(member("a", b"1"), member("a", type=tarfile.DIRTYPE)),
    "below a file": lambda: archive(member("a", b"1"), member("a/b", b"2")),
    "long path": lambda: archive(member("/".join(["d" * 50] * 30), b"x")),
    "long name": lambda: archive(member("n" * 300, b"x")),
    "deep path": lambda: archive(member("/".join("d" * 100), b"x")),
    "long link": lambda: archive(member("l", type=tarfile.SYMTYPE, linkname="d/" * 700 + "x")),
    "negative size": lambda: negative(-512) + END,
    "very negative size": lambda: negative(-(2**70)) + END,
    "endless size": lambda: header(b"f", size=b"77777777777") + END,
    "giant pax header": lambda: header(b"p", size=b"77777777777", kind=b"x") + bytes(4096),
    "giant long name": lambda: header(b"p", size=b"77777777777", kind=b"L") + bytes(4096),
    "negative pax header": lambda: (
        header(b"p", size=b"\xff" * 9 + b"\xf0\0", kind=b"x") + header(b"f") + END
    ),
    "pax size": lambda: archive(member("f", b"x", pax_headers={"size": "-1"})),
    "pax path": lambda: archive(member("f", b"x", pax_headers={"path": "../escape"})),
    "pax link": lambda: archive(
        member("f", type=tarfile.SYMTYPE, linkname="x", pax_headers={"linkpath": "../../escape"})
    ),
    "many bytes": lambda: archive(member("big", bytes(3_000_000))),
    "many entries": lambda: archive(*(member(f"f{n}") for n in range(101))),
    "cut in a file": lambda: archive(member("a", b"x" * 5000))[:2000],
    "cut in a header": lambda: archive(member("a", b"x"))[:1100] + b"garbage",
    "bad second header": lambda: archive(member("a", b"x"))[:1024] + b"\1" * 512 + END,
    "no archive": lambda: NOISE,
    "empty": lambda: b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_layers_are_refused_and_write_nothing_outside(tmp_path: Path, name: str) -> None:
    before = {"layer": "file", "outer": "folder", "outer/target": "folder"}

    with pytest.raises(FleetError) as caught:
        unpack(HOSTILE[name](), tmp_path)

    outside = {k: v for k, v in tree(tmp_path).items() if not k.startswith("outer/target/")}
    assert caught.value.code is Code.IMAGE_UNSUITABLE
    assert outside == before
    written = sum(
        os.lstat(path).st_size for path in (tmp_path / "outer").rglob("*") if path.is_file()
    )
    assert written <= SMALL.bytes + SMALL.entries * tarfile.RECORDSIZE


def test_a_gzip_bomb_is_refused_by_its_ratio(tmp_path: Path) -> None:
    bomb = gzip_module.compress(archive(member("zeros", bytes(3_000_000))))

    with pytest.raises(FleetError) as caught:
        unpack(bomb, tmp_path, gzip=True, quota=Quota(ratio_free=100_000))

    assert caught.value.code is Code.IMAGE_UNSUITABLE


@pytest.mark.parametrize("raw", [b"", b"no gzip", gzip_module.compress(NOISE)[:-900]])
def test_damaged_compression_is_refused(tmp_path: Path, raw: bytes) -> None:
    with pytest.raises(FleetError) as caught:
        unpack(raw, tmp_path, gzip=True)

    assert caught.value.code is Code.IMAGE_UNSUITABLE


@given(raw=st.binary(max_size=2000), seed=st.integers(0, 2**32))
def test_any_damage_is_unpacked_inside_or_refused(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("damage")
    whole = bytearray(
        archive(
            member("a/b", raw),
            member("l", type=tarfile.SYMTYPE, linkname="a/b"),
            member("h", type=tarfile.LNKTYPE, linkname="a/b"),
        )
    )
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    for _ in range(chance.randrange(1, 8)):
        whole[chance.randrange(min(len(whole), 4096))] = chance.randrange(256)

    try:
        unpack(bytes(whole), folder)
    except FleetError as error:
        assert error.code is Code.IMAGE_UNSUITABLE  # noqa: PT017 - either outcome is right

    outside = {k for k in tree(folder) if not k.startswith("outer/target/")}
    assert outside == {"layer", "outer", "outer/target"}
