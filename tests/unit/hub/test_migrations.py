"""Every old database ends at today's schema with its data intact, or is refused with a reason."""

from __future__ import annotations

import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import golden_store
import pytest
from golden_store import AT, connect, schema_of
from sqlalchemy import inspect

import hub
from hub.adapters.sql import tables
from hub.adapters.sql.columns import to_micros
from hub.adapters.sql.engines import make_engines
from hub.adapters.sql.store import SqlStore, open_store
from hub.migrations import Migration, Record, bundled, migrate, pending
from protocol.errors import Code, FleetError
from simulator.fakes import ManualClock

ROOT = Path(hub.__file__).parents[1]
GOLDEN = sorted(golden_store.FOLDER.glob("*.sql"))
LABELS = tuple(step.label for step in bundled())
EXTRA = Migration(
    len(LABELS) + 1,
    "extra",
    "CREATE TABLE extra (id {serial}, body {blob});\n"
    "ALTER TABLE devices ADD COLUMN place {text} NOT NULL DEFAULT 'here; there';\n",
)


def open_file(path: Path) -> SqlStore:
    return open_store(f"sqlite:///{path}", ManualClock(AT), wait_seconds=5)


def upgrade(path: Path, steps: Sequence[Migration]) -> tuple[str, ...]:
    engines = make_engines(f"sqlite:///{path}", wait_seconds=5)
    try:
        return migrate(engines.writers, steps, now_micros=lambda: 1, database=str(path))
    finally:
        engines.close()


def restore(golden: Path, path: Path) -> None:
    with connect(path) as connection:
        connection.executescript(golden.read_text())


def refusal(path: Path) -> FleetError:
    with pytest.raises(FleetError) as caught:
        open_file(path)
    assert str(path) in str(caught.value)
    assert caught.value.hint
    return caught.value


# ---- the files -----------------------------------------------------------------------------------


def test_steps_count_from_one_without_gaps() -> None:
    assert [step.version for step in bundled()] == list(range(1, len(LABELS) + 1))


def test_every_schema_has_a_golden_database() -> None:
    assert [int(golden.stem) for golden in GOLDEN] == [step.version for step in bundled()]


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_every_word_that_differs_is_replaced(dialect: str) -> None:
    for step in bundled():
        assert not re.search(r"\{\w+\}", "".join(step.statements(dialect)))


def test_statements_end_where_they_end() -> None:
    sql = (
        "-- a; comment\nCREATE TABLE a (b TEXT DEFAULT 'x;y');\n\n"
        "CREATE TRIGGER t AFTER INSERT ON a BEGIN\n  DELETE FROM a;\n  SELECT 1;\nEND;\n"
    )

    statements = list(Migration(1, "m", sql).statements("sqlite"))

    assert "".join(statements) == sql.replace("\n\n", "").rstrip("\n")
    assert len(statements) == 2


def test_a_last_statement_without_an_end_is_refused() -> None:
    with pytest.raises(ValueError, match="0001_m"):
        list(Migration(1, "m", "CREATE TABLE a (b TEXT)").statements("sqlite"))


# ---- upgrades ------------------------------------------------------------------------------------


def test_a_fresh_database_gets_every_step_once(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    first, second = open_file(path), open_file(path)

    assert (first.applied, second.applied) == (LABELS, ())
    first.close()
    second.close()


def test_each_step_leaves_its_record(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    open_file(path).close()

    with connect(path) as connection:
        rows = connection.execute("SELECT * FROM schema_migrations ORDER BY version").fetchall()

    moment = to_micros(AT)
    assert rows == [(step.version, step.name, step.sha256, moment) for step in bundled()]


def test_the_program_knows_the_columns_that_the_steps_make(tmp_path: Path) -> None:
    store = open_file(tmp_path / "hub.db")
    found = inspect(store._engines.readers)

    for table in tables.SCHEMA.tables.values():
        columns = found.get_columns(table.name)
        assert {column["name"] for column in columns} == {column.name for column in table.columns}
    assert set(found.get_table_names()) == {*tables.SCHEMA.tables, "schema_migrations"}
    store.close()


def test_a_fresh_database_has_the_schema_of_the_newest_golden_one(tmp_path: Path) -> None:
    fresh, golden = tmp_path / "fresh.db", tmp_path / "golden.db"
    open_file(fresh).close()
    restore(GOLDEN[-1], golden)

    assert schema_of(fresh) == schema_of(golden)


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.stem)
def test_an_old_database_ends_at_the_schema_of_today_with_its_data(
    tmp_path: Path, golden: Path
) -> None:
    fresh, old = tmp_path / "fresh.db", tmp_path / "old.db"
    open_file(fresh).close()
    restore(golden, old)

    store = open_file(old)

    assert store.applied == LABELS[int(golden.stem) :]
    assert schema_of(old) == schema_of(fresh)
    with store.begin(write=False) as work:
        golden_store.check(work)
    store.close()


def test_a_new_step_keeps_the_data(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    restore(GOLDEN[-1], path)

    assert upgrade(path, [*bundled(), EXTRA]) == (EXTRA.label,)

    with connect(path) as connection:
        places = connection.execute("SELECT id, place FROM devices").fetchall()
    assert places == [(golden_store.CAMERA, "here; there")]


def test_a_step_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    open_file(path).close()
    before = schema_of(path)
    broken = replace(EXTRA, template=f"{EXTRA.template}DROP TABLE nowhere;\n")

    with pytest.raises(Exception, match="no such table: nowhere"):
        upgrade(path, [*bundled(), broken])

    assert schema_of(path) == before
    assert upgrade(path, [*bundled(), EXTRA]) == (EXTRA.label,)


KILLED = """
import os, signal, sys
from sqlalchemy import event
from hub.adapters.sql.engines import make_engines
from hub.migrations import Migration, bundled, migrate

engines = make_engines(sys.argv[1], wait_seconds=5)

def die():
    os.kill(os.getpid(), signal.SIGKILL)

@event.listens_for(engines.writers, "connect")
def arm(connection, _):
    connection.create_function("die", 0, die)

template = "CREATE TABLE half (a TEXT);\\nINSERT INTO half VALUES ('x');\\nSELECT die();\\n"
step = Migration(len(bundled()) + 1, "killed", template)
migrate(engines.writers, [*bundled(), step], now_micros=lambda: 1, database="d")
"""


def test_a_start_killed_in_the_middle_of_a_step_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    open_file(path).close()
    before = schema_of(path)

    command = [sys.executable, "-c", KILLED, f"sqlite:///{path}"]
    killed = subprocess.run(command, cwd=ROOT, check=False, timeout=60)

    assert killed.returncode == -signal.SIGKILL
    assert schema_of(path) == before
    assert upgrade(path, [*bundled(), EXTRA]) == (EXTRA.label,)


STARTER = """
import sys
from hub.adapters.clock import SystemClock
from hub.adapters.sql.store import open_store
print("ready", flush=True)
sys.stdin.readline()
print(open_store(sys.argv[1], SystemClock()).applied)
"""


def test_programs_that_start_at_once_apply_each_step_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'hub.db'}"
    command = [sys.executable, "-c", STARTER, url]
    starters = [
        subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for starter in starters:
        assert starter.stdout is not None
        assert starter.stdout.readline() == "ready\n"

    for starter in starters:
        assert starter.stdin is not None
        starter.stdin.close()
        starter.stdin = None
    told = sorted(starter.communicate(timeout=60)[0].strip() for starter in starters)

    assert told == sorted([str(LABELS), "()", "()"])


# ---- refusals ------------------------------------------------------------------------------------


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    upgrade(path, [*bundled(), EXTRA])

    assert refusal(path).code is Code.DATABASE_NEWER


def test_a_database_made_by_an_edited_step_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    open_file(path).close()
    with connect(path) as connection:
        connection.execute("UPDATE schema_migrations SET sha256 = 'other' WHERE version = 1")
        connection.commit()

    error = refusal(path)

    assert error.code is Code.STATE_CONFLICT
    assert LABELS[0] in str(error)


@pytest.mark.parametrize(
    "record", [Record(1, "other", EXTRA.sha256), Record(2, "extra", EXTRA.sha256)]
)
def test_a_step_under_another_name_or_number_is_refused(record: Record) -> None:
    with pytest.raises(FleetError) as caught:
        pending([record], [Migration(1, "extra", EXTRA.template)], database="d")

    assert caught.value.code is Code.STATE_CONFLICT


def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    with connect(path) as connection:
        connection.execute("CREATE TABLE journal (a TEXT)")
    before = schema_of(path)

    assert refusal(path).code is Code.STATE_CONFLICT
    assert schema_of(path) == before


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    path.write_bytes(b"something else entirely\n" * 100)

    error = refusal(path)

    assert error.code is Code.DATABASE_CORRUPT
    assert "backup" in str(error.hint)
    assert path.read_bytes() == b"something else entirely\n" * 100


def test_a_damaged_page_is_found_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    restore(GOLDEN[-1], path)
    with connect(path) as connection:
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'devices'"
        page = connection.execute(query).fetchone()[0]
        size = connection.execute("PRAGMA page_size").fetchone()[0]
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xa5" * size)

    error = refusal(path)

    assert error.code is Code.DATABASE_CORRUPT
    assert "backup" in str(error.hint)


def test_a_torn_file_is_found_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    restore(GOLDEN[-1], path)
    path.write_bytes(path.read_bytes()[:-8192])

    assert refusal(path).code is Code.DATABASE_CORRUPT


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path / "nowhere" / "hub.db")

    assert error.code is Code.DATABASE_UNAVAILABLE
    assert "folder" in str(error.hint)


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path).code is Code.DATABASE_UNAVAILABLE


def test_a_file_that_another_program_keeps_to_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    open_file(path).close()
    with connect(path) as other:
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(FleetError) as caught:
            open_store(f"sqlite:///{path}", ManualClock(AT), wait_seconds=0.05)

    assert caught.value.code is Code.DATABASE_UNAVAILABLE
    assert caught.value.retryable


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "mysql://user:s3cret@host/db",
        "postgresql+asyncpg://user:s3cret@host/db",
        "s3cret",
        "",
    ],
)
def test_other_urls_are_refused_without_telling_the_password(url: str) -> None:
    with pytest.raises(FleetError) as caught:
        open_store(url, ManualClock(AT))

    assert caught.value.code is Code.SETTINGS_INVALID
    assert "s3cret" not in f"{caught.value} {caught.value.hint}"


def test_a_refused_database_is_not_kept_open(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    upgrade(path, [*bundled(), EXTRA])
    refusal(path)

    with sqlite3.connect(path, timeout=0.05) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
    connection.close()
