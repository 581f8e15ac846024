"""What SQLite must be told, and what a commit on it is worth."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import event

import hub
from hub.adapters.clock import SystemClock
from hub.adapters.sql.store import SqlStore, open_store
from hub.core.device import Device, DeviceState
from hub.core.model import Model
from hub.core.telemetry import Measurement, TelemetryFilter
from protocol.errors import Code, UnavailableError
from protocol.ids import DeviceId, digest_of

ROOT = Path(hub.__file__).parents[1]
AT = datetime(2030, 1, 2, tzinfo=UTC)
CAMERA = DeviceId("camera-1")
ROW = Measurement(CAMERA, "e", 1, "m", "o", AT, AT, b"x" * 4000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hub.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqlStore]:
    made = open_store(f"sqlite:///{path}", SystemClock(), wait_seconds=0.1)
    yield made
    made.close()


COMMITTING = """
import sys
from datetime import UTC, datetime
from hub.adapters.clock import SystemClock
from hub.adapters.sql.store import open_store
from hub.core.telemetry import Measurement

now = datetime(2030, 1, 2, tzinfo=UTC)
store = open_store(sys.argv[1], SystemClock())
with store.begin(write=False) as work:
    seq = work.telemetry.count()
while True:
    rows = [Measurement("d", "e", seq + n, "m", "o", now, now, bytes(300)) for n in range(1, 8)]
    with store.begin() as work:
        work.telemetry.add(rows)
        work.commit()
    seq += len(rows)
    print(seq, flush=True)
"""


def test_a_killed_hub_loses_nothing_it_acknowledged(path: Path) -> None:
    chance = random.Random(7)  # noqa: S311 - moments, not secrets
    url = f"sqlite:///{path}"
    acknowledged = 0
    for _ in range(5):
        child = subprocess.Popen(
            [sys.executable, "-c", COMMITTING, url], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        first = child.stdout.readline()
        timer = threading.Timer(chance.uniform(0, 0.15), child.send_signal, [signal.SIGKILL])
        timer.start()
        told = [first, *child.stdout]
        timer.join()
        child.stdout.close()
        assert child.wait(10) == -signal.SIGKILL
        acknowledged = int(told[-1])

        store = open_store(url, SystemClock())
        with store.begin(write=False) as work:
            found = [row.seq for row in work.telemetry.each(TelemetryFilter(limit=None))]
        store.close()

        assert len(found) >= acknowledged
        assert found == list(range(1, len(found) + 1))
        assert len(found) % 7 == 0  # a batch is there whole or not at all
    assert acknowledged > 5


def test_every_commit_reaches_the_disk(store: SqlStore) -> None:
    with store._engines.writers.connect() as connection:
        facts = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }

    full = 2
    assert facts == {
        "journal_mode": "wal",
        "synchronous": full,
        "foreign_keys": 1,
        "busy_timeout": 100,
    }


def test_without_a_word_a_transaction_waits_ten_seconds(path: Path) -> None:
    store = open_store(f"sqlite:///{path}", SystemClock())
    with store._engines.writers.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 10_000
    store.close()


def test_a_writing_unit_locks_from_its_first_moment_on(store: SqlStore, path: Path) -> None:
    with (
        store.begin(),
        closing(sqlite3.connect(path, timeout=0)) as other,
        pytest.raises(sqlite3.OperationalError, match="locked"),
    ):
        other.execute("BEGIN IMMEDIATE")


def test_a_second_writer_gives_up_in_time(store: SqlStore) -> None:
    with store.begin(), pytest.raises(UnavailableError) as caught, store.begin():
        pass

    assert caught.value.code is Code.DATABASE_UNAVAILABLE


def test_another_program_that_writes_is_waited_for_in_vain_and_then_named(
    store: SqlStore, path: Path
) -> None:
    with closing(sqlite3.connect(path, timeout=0)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UnavailableError) as caught, store.begin():
            pass
        other.execute("ROLLBACK")

    assert caught.value.code is Code.DATABASE_UNAVAILABLE
    assert str(path) in str(caught.value)


def test_a_writer_that_was_refused_can_write_later(store: SqlStore, path: Path) -> None:
    with closing(sqlite3.connect(path, timeout=0)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UnavailableError), store.begin():
            pass
        other.execute("ROLLBACK")

    with store.begin() as work:
        assert work.telemetry.add([ROW]) == 1


def test_readers_do_not_wait_for_a_writer(store: SqlStore) -> None:
    with store.begin() as writer:
        writer.telemetry.add([ROW])
        with store.begin(write=False) as reader:
            assert reader.telemetry.count() == 0


def test_a_full_disk_is_named_and_what_was_committed_stays(store: SqlStore) -> None:
    with store.begin() as work:
        work.telemetry.add([ROW])
        work.commit()
    with store._engines.writers.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")  # the size it has by now

    with pytest.raises(UnavailableError) as caught, store.begin() as work:
        work.telemetry.add([replace(ROW, seq=seq) for seq in range(2, 200)])

    assert caught.value.code is Code.DISK_FULL
    with store.begin(write=False) as work:
        assert work.telemetry.count() == 1


def test_damage_found_while_running_is_named(store: SqlStore, path: Path) -> None:
    with store.begin() as work:
        work.telemetry.add([replace(ROW, seq=seq) for seq in range(200)])
        work.commit()
    store.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096 * 4)
        file.write(b"\xa5" * (size - 4096 * 4))

    with pytest.raises(UnavailableError) as caught, store.begin(write=False) as work:
        list(work.telemetry.each(TelemetryFilter(limit=None)))

    assert caught.value.code is Code.DATABASE_CORRUPT


@pytest.mark.parametrize("doomed", [1, 2])
def test_a_deleted_model_version_never_comes_back(store: SqlStore, doomed: int) -> None:
    with store.begin() as work:
        for version in (1, 2):
            work.models.add(Model("digits", version, digest_of(b""), 0, "f", AT))
        work.commit()
    with store._engines.writers.begin() as connection:
        connection.exec_driver_sql("DELETE FROM models WHERE version = ?", (doomed,))

    with store.begin(write=False) as work:
        assert work.models.next_version("digits") == 3


def test_ids_of_deleted_measurements_never_come_back(store: SqlStore) -> None:
    with store.begin() as work:
        work.telemetry.add([ROW, replace(ROW, seq=2)])
        work.commit()
    with store._engines.writers.begin() as connection:
        connection.exec_driver_sql("DELETE FROM telemetry")

    with store.begin() as work:
        work.telemetry.add([ROW])
        assert [row.id for row in work.telemetry.tail(TelemetryFilter())] == [3]


def test_a_list_is_one_query(store: SqlStore) -> None:
    with store.begin() as work:
        for number in range(50):
            work.devices.put(Device(DeviceId(f"d-{number}"), "p", DeviceState.ENROLLED, AT))
        work.commit()
    asked: list[str] = []
    event.listen(
        store._engines.readers, "before_cursor_execute", lambda *about: asked.append(about[2])
    )

    with store.begin(write=False) as work:
        assert len(work.devices.list()) == 50

    assert [text for text in asked if text.startswith("SELECT")] == asked[-1:]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM members WHERE device_id = 'd' ORDER BY deployment_id",
        "SELECT * FROM members WHERE deployment_id = 'd' ORDER BY device_id",
        "SELECT * FROM telemetry WHERE id > 5 AND device = 'd' ORDER BY id LIMIT 9",
        "SELECT * FROM telemetry WHERE device = 'd' ORDER BY id DESC LIMIT 9",
        "SELECT * FROM telemetry WHERE id > 5 ORDER BY id LIMIT 9",
        "SELECT * FROM devices WHERE id > 'd' ORDER BY id LIMIT 9",
        "SELECT * FROM models WHERE name = 'm' ORDER BY version DESC LIMIT 1",
        "SELECT * FROM oci_manifests WHERE repository = 'r' AND subject = 's'",
        "SELECT tag FROM oci_tags WHERE repository = 'r' AND tag > 't' ORDER BY tag LIMIT 9",
        "DELETE FROM oci_tags WHERE repository = 'r' AND digest = 'd'",
        "SELECT repository FROM oci_blobs WHERE digest = 'd' ORDER BY repository",
        "SELECT id FROM quarantine WHERE device = 'd' ORDER BY id DESC LIMIT 1 OFFSET 100",
    ],
)
def test_no_common_question_reads_a_whole_table_or_sorts(store: SqlStore, query: str) -> None:
    with store._engines.readers.connect() as connection:
        plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}")]

    assert all(step.startswith("SEARCH") for step in plan), plan
