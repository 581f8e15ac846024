"""Archives from people who mean harm, and from people who do not."""

import contextlib
import gzip
import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packaging_lab import make_tar

from hub.adapters.packaging.tar_layers import Entry
from hub.adapters.packaging.untar import ArchiveLimits, stage_archive
from protocol.errors import Code, InvalidError

MIB = 1024 * 1024
LIMITS = ArchiveLimits(entries=50, total_bytes=2 * MIB)


def nothing() -> None:
    """Check nothing."""


def stage(folder: Path, archive: bytes, limits: ArchiveLimits = LIMITS) -> list[Entry]:
    folder.mkdir(exist_ok=True)
    return stage_archive(io.BytesIO(archive), folder, limits, check=nothing)


def contents(entries: list[Entry]) -> dict[str, bytes]:
    found = {}
    for entry in entries:
        assert entry.open is not None
        with entry.open() as file:
            found[entry.path] = file.read()
    return found


def member(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: object) -> bytes:
    """Return an archive of one member with some header fields of our choice."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512 + 1024)


def resealed(block: bytes) -> bytes:
    """Return a header with a checksum that fits."""
    blank = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(blank) + block[156:]


def with_size(raw: bytes) -> bytes:
    """Return an archive whose member has these twelve bytes as its size."""
    archive = member("a.py", data=b"x")
    return resealed(archive[:124] + raw + archive[136:512]) + archive[512:]


def pax(records: bytes, name: str = "a.py") -> bytes:
    return member("header", tarfile.XHDTYPE, records)[:-1024] + member(name, data=b"x")


def record(key: str, value: str) -> bytes:
    """Return one well-formed record of an extension header."""
    text = f" {key}={value}\n".encode()
    length = len(text)
    while length != len(text) + len(str(length)):
        length = len(text) + len(str(length))
    return str(length).encode() + text


HOSTILE: dict[str, tuple[bytes, str]] = {
    "absolute path": (member("/etc/passwd"), "not acceptable"),
    "parent folder": (member("../x"), "leaves"),
    "parent folder inside": (member("a/../../x"), "leaves"),
    "backslash": (member("a\\..\\x"), "not acceptable"),
    "control character": (member("a\nb"), "not acceptable"),
    "null name": (member(""), "without a name"),
    "symbolic link": (member("a", tarfile.SYMTYPE, linkname="/etc/passwd"), "symbolic link"),
    "hard link": (member("a", tarfile.LNKTYPE, linkname="/etc/passwd"), "hard link"),
    "character device": (member("a", tarfile.CHRTYPE), "character device"),
    "block device": (member("a", tarfile.BLKTYPE), "block device"),
    "pipe": (member("a", tarfile.FIFOTYPE), "pipe"),
    "sparse file": (member("a", tarfile.GNUTYPE_SPARSE), "sparse"),
    "contiguous file": (member("a", tarfile.CONTTYPE), "unknown type"),
    "unknown type": (member("a", b"Z"), "unknown type"),
    "name twice": (make_tar({"a": b"1"})[:1024] + make_tar({"a": b"2"}), "twice"),
    "file below a file": (make_tar({"a": b"1"})[:1024] + make_tar({"a/b": b"2"}), "twice"),
    "file where a folder is": (make_tar({"a/b": b"1"})[:1024] + make_tar({"a": b"2"}), "twice"),
    "very long path": (make_tar({"a/" * 600 + "b": b""}), "too long"),
    "very long name": (make_tar({"n" * 300: b""}), "too long"),
    "very deep": (make_tar({"d/" * 40 + "f": b""}), "too long"),
    "absolute by extension": (pax(record("path", "/etc/passwd")), "not acceptable"),
    "parent by extension": (pax(record("path", "../../x")), "leaves"),
    "size by extension": (pax(record("size", "9" * 18)), "larger than allowed"),
    "negative size by extension": (pax(record("size", "-512")), "damaged"),
    "sparse by extension": (pax(record("GNU.sparse.major", "1")), "sparse"),
    "names for all": (member("g", tarfile.XGLTYPE, record("path", "a.py")), "one name"),
    "broken record length": (pax(b"99 path=a\n"), "damaged"),
    "zero record length": (pax(b"0 path=a\n"), "damaged"),
    "no record length": (pax(b"path=a\n"), "damaged"),
    "huge extension": (member("h", tarfile.XHDTYPE, b"x" * 100_000), "too large"),
    "long name that is no text": (
        member("l", tarfile.GNUTYPE_LONGNAME, b"\xff\xfe") + member("a"),
        "damaged",
    ),
    "negative size": (with_size(b"\xff" * 12), "damaged"),
    "size not octal": (with_size(b"99999999999\0"), "damaged"),
    "size beyond everything": (with_size(b"\x80" + b"\xff" * 11), "larger than allowed"),
    "too large": (make_tar({"a": b"x" * (3 * MIB)}), "larger than allowed"),
    "too many": (make_tar({f"f{number}": b"" for number in range(51)}), "more entries"),
    "too many folders": (
        b"".join(member(f"d{n}/", tarfile.DIRTYPE)[:-1024] for n in range(60)),
        "more entries",
    ),
    "nothing but extensions": (
        member("g", tarfile.XGLTYPE, record("a", "b"))[:-1024] * 400,
        "more entries",
    ),
    "cut short": (make_tar({"a": b"x" * 2000})[:1500], "damaged"),
    "no end": (make_tar({"a": b"x"})[:1024], "damaged"),
    "wrong checksum": (b"\x01" + make_tar({"a": b"x"})[1:], "damaged"),
    "empty": (b"", "damaged"),
    "not a tar": (b"PK\x03\x04" + b"x" * 4096, "damaged"),
    "bomb": (gzip.compress(make_tar({"a": bytes(64 * MIB)})), "larger than allowed"),
    "gzip cut short": (
        gzip.compress(make_tar({"a": hashlib.shake_128().digest(5000)}))[:900],
        "damaged",
    ),
    "gzip of noise": (b"\x1f\x8b\x08\x00" + b"\xaa" * 500, "damaged"),
}


@pytest.mark.parametrize(("archive", "words"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_archives_are_refused_and_nothing_is_outside(
    archive: bytes, words: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidError, match=words) as caught:
        stage(tmp_path / "staging", archive)

    assert caught.value.code in (Code.REQUEST_INVALID, Code.TOO_LARGE)
    assert [path.name for path in tmp_path.iterdir()] == ["staging"]
    staged = list((tmp_path / "staging").rglob("*"))
    assert all(path.is_file() and not path.is_symlink() for path in staged)
    assert sum(path.stat().st_size for path in staged) <= LIMITS.total_bytes


def test_there_are_at_least_forty_hostile_samples() -> None:
    assert len(HOSTILE) >= 40


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_an_honest_archive_comes_through(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    files = {"score.py": b"x", "pkg/sub/a.py": b"y" * 5000, "./b": b"", "ümlaut.txt": b"z"}

    found = contents(stage(tmp_path / "s", pack(make_tar(files))))

    assert found == {name.removeprefix("./"): data for name, data in files.items()}


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_of_every_format_come_through(tmp_path: Path, format_: int) -> None:
    name = "folder-" + "a" * 60 + "/" + "b" * 80 + ".py"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format_) as archive:
        info = tarfile.TarInfo(name)
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))

    assert contents(stage(tmp_path / "s", buffer.getvalue())) == {name: b"abc"}


def test_modes_are_folded_and_setuid_is_lost(tmp_path: Path) -> None:
    entries = stage(tmp_path / "s", member("run.sh", data=b"#!", mode=0o6755))

    assert [(entry.path, entry.executable, entry.mode) for entry in entries] == [
        ("run.sh", True, None)
    ]


def test_bytecode_is_left_out(tmp_path: Path) -> None:
    files = {"a.py": b"", "__pycache__/a.cpython-311.pyc": b"x", "b.pyc": b"y"}

    assert list(contents(stage(tmp_path / "s", make_tar(files)))) == ["a.py"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(position=st.integers(0, 2000), value=st.integers(0, 255))
def test_a_flipped_byte_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int
) -> None:
    archive = bytearray(make_tar({"a.py": b"x" * 100, "b/c.py": b"y"}))
    archive[position] = value
    folder = tmp_path_factory.mktemp("flip")
    with contextlib.suppress(InvalidError):
        for entry in stage(folder, bytes(archive)):
            assert not entry.path.startswith("/")
            assert ".." not in entry.path.split("/")
