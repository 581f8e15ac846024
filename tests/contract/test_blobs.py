"""What every blob store must do; today there is one, on a disk."""

import io
import os
import threading
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from hub.adapters.blobs import DiskBlobs
from protocol.errors import Code, FleetError
from protocol.ids import Digest, digest_of

OWNER = "team/app"


@pytest.fixture
def blobs(tmp_path: Path) -> DiskBlobs:
    return DiskBlobs(tmp_path)


def code_of(call: Callable[[], object]) -> Code:
    with pytest.raises(FleetError) as caught:
        call()
    return caught.value.code


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


@pytest.mark.parametrize("data", [b"", b"x", b"y" * (3 * 1024 * 1024 + 1)])
def test_what_is_put_is_found_by_its_digest(blobs: DiskBlobs, data: bytes) -> None:
    digest = blobs.put(io.BytesIO(data), expected=digest_of(data))

    assert digest == digest_of(data)
    assert blobs.has(digest)
    assert blobs.size(digest) == len(data)
    with blobs.open(digest) as file:
        assert file.read() == data


def test_the_same_bytes_twice_are_one_file(blobs: DiskBlobs) -> None:
    blobs.put(io.BytesIO(b"same"))
    blobs.put(io.BytesIO(b"same"))

    assert len(files(blobs.root)) == 1


def test_a_wrong_digest_leaves_nothing(blobs: DiskBlobs) -> None:
    wrong = digest_of(b"else")

    assert code_of(lambda: blobs.put(io.BytesIO(b"x"), expected=wrong)) == Code.DIGEST_MISMATCH
    assert files(blobs.root) == []


def test_a_source_that_breaks_leaves_nothing(blobs: DiskBlobs) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:  # noqa: ARG002 - as every file
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        blobs.put(Broken())

    assert files(blobs.root) == []


def test_an_unknown_digest_is_an_error(blobs: DiskBlobs) -> None:
    unknown = digest_of(b"no")

    assert not blobs.has(unknown)
    assert code_of(lambda: blobs.size(unknown)) == Code.BLOB_UNKNOWN
    assert code_of(lambda: blobs.open(unknown)) == Code.BLOB_UNKNOWN


@pytest.mark.parametrize("bad", ["sha256:../../etc/passwd", "x", "sha256:" + "A" * 64])
def test_a_malformed_digest_reaches_no_path(blobs: DiskBlobs, bad: str) -> None:
    assert code_of(lambda: blobs.open(Digest(bad))) == Code.ID_INVALID


def test_too_many_bytes_are_refused(tmp_path: Path) -> None:
    small = DiskBlobs(tmp_path, max_blob_bytes=10)

    assert code_of(lambda: small.put(io.BytesIO(b"x" * 11))) == Code.TOO_LARGE
    assert files(tmp_path) == []


def test_a_full_disk_is_said_to_be_full() -> None:
    """Writes to a real file system without space."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    from hub.adapters.blobs import disk_errors, write_all  # noqa: PLC0415 - the piece under test

    def fill() -> None:
        with disk_errors(), full.open("wb", buffering=0) as file:
            write_all(file.fileno(), b"x")

    assert code_of(fill) == Code.DISK_FULL


def test_a_deleted_blob_is_gone(blobs: DiskBlobs) -> None:
    digest = blobs.put(io.BytesIO(b"x"))

    assert blobs.delete(digest)
    assert not blobs.delete(digest)
    assert not blobs.has(digest)


def test_many_writers_of_the_same_bytes_agree(blobs: DiskBlobs) -> None:
    data = b"z" * 200_000
    threads = [threading.Thread(target=lambda: blobs.put(io.BytesIO(data))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [path.stat().st_size for path in files(blobs.root)] == [len(data)]


# ---- uploads -------------------------------------------------------------------------------------


def test_an_upload_grows_and_becomes_a_blob(blobs: DiskBlobs) -> None:
    upload = blobs.start_upload(OWNER)
    assert blobs.append(OWNER, upload, 0, io.BytesIO(b"abc")) == 3
    assert blobs.append(OWNER, upload, 3, io.BytesIO(b"def")) == 6

    assert blobs.finish_upload(OWNER, upload, digest_of(b"abcdef")) == digest_of(b"abcdef")
    assert blobs.size(digest_of(b"abcdef")) == 6
    assert code_of(lambda: blobs.upload_size(OWNER, upload)) == Code.BLOB_UNKNOWN


def test_an_upload_goes_on_after_a_restart(blobs: DiskBlobs) -> None:
    upload = blobs.start_upload(OWNER)
    blobs.append(OWNER, upload, 0, io.BytesIO(b"abc"))
    restarted = DiskBlobs(blobs.root)

    assert restarted.upload_size(OWNER, upload) == 3
    restarted.append(OWNER, upload, 3, io.BytesIO(b"def"))
    assert restarted.finish_upload(OWNER, upload, digest_of(b"abcdef")) == digest_of(b"abcdef")


def test_a_gap_is_refused(blobs: DiskBlobs) -> None:
    upload = blobs.start_upload(OWNER)

    assert code_of(lambda: blobs.append(OWNER, upload, 5, io.BytesIO(b"x"))) == Code.STATE_CONFLICT
    assert blobs.upload_size(OWNER, upload) == 0


def test_only_its_owner_finds_an_upload(blobs: DiskBlobs) -> None:
    upload = blobs.start_upload(OWNER)

    assert code_of(lambda: blobs.upload_size("team/else", upload)) == Code.BLOB_UNKNOWN
    assert code_of(lambda: blobs.cancel_upload("team/else", upload)) == Code.BLOB_UNKNOWN


@pytest.mark.parametrize("bad", ["", "x", "../../etc/passwd", "0" * 16 + "-" + "0" * 32])
def test_an_invented_upload_is_unknown(blobs: DiskBlobs, bad: str) -> None:
    assert code_of(lambda: blobs.append(OWNER, bad, 0, io.BytesIO(b"x"))) == Code.BLOB_UNKNOWN


def test_one_writer_at_a_time(blobs: DiskBlobs) -> None:
    upload = blobs.start_upload(OWNER)
    writer = blobs.continue_upload(OWNER, upload)

    assert code_of(lambda: blobs.continue_upload(OWNER, upload)) == Code.STATE_CONFLICT
    writer.close()
    blobs.continue_upload(OWNER, upload).close()


def test_a_wrong_digest_ends_an_upload(blobs: DiskBlobs) -> None:
    upload = blobs.start_upload(OWNER)
    wrong = digest_of(b"else")

    assert code_of(lambda: blobs.finish_upload(OWNER, upload, wrong)) == Code.DIGEST_MISMATCH
    assert files(blobs.root) == []


def test_a_cancelled_upload_is_gone(blobs: DiskBlobs) -> None:
    upload = blobs.start_upload(OWNER)
    blobs.cancel_upload(OWNER, upload)

    assert code_of(lambda: blobs.cancel_upload(OWNER, upload)) == Code.BLOB_UNKNOWN
    assert files(blobs.root) == []


def test_a_cancelled_upload_cannot_be_finished_by_who_still_writes(blobs: DiskBlobs) -> None:
    upload = blobs.start_upload(OWNER)
    writer = blobs.continue_upload(OWNER, upload)
    blobs.cancel_upload(OWNER, upload)
    writer.write(b"late")
    writer.close()

    late = digest_of(b"late")
    assert code_of(lambda: blobs.finish_upload(OWNER, upload, late)) == Code.BLOB_UNKNOWN
    assert not blobs.has(late)


def test_old_uploads_are_swept_and_new_ones_stay(blobs: DiskBlobs) -> None:
    old, new = blobs.start_upload(OWNER), blobs.start_upload(OWNER)
    yesterday = datetime.now(UTC) - timedelta(days=2)
    os.utime(blobs.root / "incoming" / old, (yesterday.timestamp(), yesterday.timestamp()))

    assert blobs.expire_uploads(datetime.now(UTC) - timedelta(days=1)) == 1
    assert blobs.upload_size(OWNER, new) == 0
    assert code_of(lambda: blobs.upload_size(OWNER, old)) == Code.BLOB_UNKNOWN


def test_the_number_of_uploads_is_bounded(tmp_path: Path) -> None:
    few = DiskBlobs(tmp_path, max_uploads=2)
    few.start_upload(OWNER)
    few.start_upload(OWNER)

    assert code_of(lambda: few.start_upload(OWNER)) == Code.BUSY


def test_a_large_file_does_not_pass_through_memory(blobs: DiskBlobs) -> None:
    size = 64 * 1024 * 1024

    class Endless(io.RawIOBase):
        left = size

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            count = min(len(buffer), self.left)
            buffer[:count] = bytes(count)
            self.left -= count
            return count

    source: BinaryIO = io.BufferedReader(Endless())
    tracemalloc.start()
    try:
        blobs.put(source)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < size // 8
