"""Several hubs on one PostgreSQL, and what happens when it is not there."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import inspect, make_url

import hub
from hub.adapters.clock import SystemClock
from hub.adapters.sql import tables
from hub.adapters.sql.store import SqlStore, open_store
from hub.core.telemetry import Measurement, TelemetryFilter
from hub.migrations import bundled
from protocol.errors import Code, FleetError, UnavailableError
from protocol.ids import DeviceId

pytest_plugins = ["store_fixtures"]
pytestmark = pytest.mark.postgres

ROOT = Path(hub.__file__).parents[1]
LABELS = tuple(step.label for step in bundled())
AT = datetime(2030, 1, 2, tzinfo=UTC)
ROW = Measurement(DeviceId("camera-1"), "e", 1, "m", "o", AT, AT, b"x")

Open = Callable[..., SqlStore]


@pytest.fixture
def open_hub(postgres_url: str) -> Iterator[Open]:
    """Return a function that opens one more hub's store on the same database."""
    opened: list[SqlStore] = []

    def one_more(wait_seconds: float = 10.0) -> SqlStore:
        opened.append(open_store(postgres_url, SystemClock(), wait_seconds=wait_seconds))
        return opened[-1]

    yield one_more
    for store in opened:
        store.close()


def connect(url: str) -> psycopg.Connection:
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(plain, autocommit=True)


STARTER = """
import sys
from hub.adapters.clock import SystemClock
from hub.adapters.sql.store import open_store
print("ready", flush=True)
sys.stdin.readline()
print(open_store(sys.argv[1], SystemClock()).applied)
"""


def test_hubs_that_start_at_once_apply_each_step_once(postgres_url: str) -> None:
    command = [sys.executable, "-c", STARTER, postgres_url]
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


KILLED = """
import os, signal, sys
from hub.adapters.sql.engines import make_engines
from hub.migrations import Migration, migrate

class Deadly(Migration):
    def statements(self, dialect):
        yield from super().statements(dialect)
        os.kill(os.getpid(), signal.SIGKILL)

engines = make_engines(sys.argv[1], wait_seconds=5)
steps = [Deadly(1, "killed", "CREATE TABLE half (a {text});\\n")]
migrate(engines.writers, steps, now_micros=lambda: 1, database="d")
"""


def test_a_start_killed_in_the_middle_of_a_step_leaves_nothing_behind(
    postgres_url: str, open_hub: Open
) -> None:
    command = [sys.executable, "-c", KILLED, postgres_url]
    killed = subprocess.run(command, cwd=ROOT, check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL

    store = open_hub()

    assert store.applied == LABELS
    assert "half" not in inspect(store._engines.readers).get_table_names()


def test_the_program_knows_the_columns_that_the_steps_make(open_hub: Open) -> None:
    found = inspect(open_hub()._engines.readers)

    for table in tables.SCHEMA.tables.values():
        columns = found.get_columns(table.name)
        assert {column["name"] for column in columns} == {column.name for column in table.columns}


def test_a_database_that_is_up_to_date_is_opened_unchanged(open_hub: Open) -> None:
    assert (open_hub().applied, open_hub().applied) == (LABELS, ())


def test_hubs_write_in_turns(open_hub: Open) -> None:
    hubs = [open_hub(), open_hub()]

    def count_up(store: SqlStore) -> None:
        for _ in range(20):
            with store.begin() as work:
                work.put_setting("count", str(int(work.get_setting("count") or 0) + 1))
                work.commit()

    threads = [threading.Thread(target=count_up, args=[store]) for store in hubs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with hubs[0].begin(write=False) as work:
        assert work.get_setting("count") == "40"


def test_a_hub_that_waits_too_long_for_another_gives_up(open_hub: Open) -> None:
    busy, waiting = open_hub(), open_hub(wait_seconds=0.1)

    with busy.begin(), pytest.raises(UnavailableError) as caught, waiting.begin():
        pass

    assert caught.value.code is Code.DATABASE_UNAVAILABLE
    assert "locked" in str(caught.value)


def test_readers_do_not_wait_for_a_writer(open_hub: Open) -> None:
    store = open_hub(wait_seconds=0.1)
    with store.begin() as writer:
        writer.telemetry.add([ROW])
        with store.begin(write=False) as reader:
            assert reader.telemetry.count() == 0


def test_hubs_in_two_schemas_of_one_database_do_not_meet(postgres_url: str) -> None:
    with closing(connect(postgres_url)) as connection:
        connection.execute("CREATE SCHEMA other")
    elsewhere = make_url(postgres_url).update_query_dict({"options": "-csearch_path=other"})
    one = open_store(postgres_url, SystemClock(), wait_seconds=0.1)
    other = open_store(elsewhere.render_as_string(hide_password=False), SystemClock())

    with one.begin() as here, other.begin() as there:
        here.put_setting("where", "here")
        assert there.get_setting("where") is None
    one.close()
    other.close()


def test_a_commit_waits_for_the_disk(postgres_url: str) -> None:
    url = make_url(postgres_url)
    options = f"{url.query['options']} -csynchronous_commit=off"
    careless = url.update_query_dict({"options": options}).render_as_string(hide_password=False)
    store = open_store(careless, SystemClock())

    with store._engines.writers.connect() as writer:
        assert writer.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
    store.close()


def end_sessions(url: str) -> None:
    with closing(connect(url)) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'rimward-hub' AND datname = current_database()"
        )


def test_a_lost_connection_ends_the_unit_and_the_next_one_works(
    postgres_url: str, open_hub: Open
) -> None:
    store = open_hub()
    with pytest.raises(UnavailableError) as caught, store.begin() as work:  # noqa: PT012 - in one unit
        work.telemetry.add([ROW])
        end_sessions(postgres_url)
        work.commit()
    assert caught.value.code is Code.DATABASE_UNAVAILABLE

    with store.begin() as work:
        assert work.telemetry.add([ROW]) == 1


def test_connections_that_died_unused_cost_nobody_an_error(
    postgres_url: str, open_hub: Open
) -> None:
    store = open_hub()
    with store.begin(write=False) as work:
        work.telemetry.count()
    end_sessions(postgres_url)

    with store.begin() as writer, store.begin(write=False) as reader:
        assert (writer.telemetry.count(), reader.telemetry.count()) == (0, 0)


def refusal(url: str) -> FleetError:
    with pytest.raises(FleetError) as caught:
        open_store(url, SystemClock(), wait_seconds=2)
    assert caught.value.hint
    assert "s3cret" not in f"{caught.value} {caught.value.hint}"
    return caught.value


def test_a_server_that_is_not_there_is_unavailable() -> None:
    error = refusal("postgresql+psycopg://rimward:s3cret@127.0.0.1:1/rimward")

    assert error.code is Code.DATABASE_UNAVAILABLE
    assert "does not answer" in str(error)
    assert "start PostgreSQL" in str(error.hint)


@pytest.mark.parametrize("change", [{"database": "nowhere"}, {"username": "nobody"}])
def test_an_unknown_database_or_user_is_unavailable(
    postgres_url: str, change: dict[str, str]
) -> None:
    url = make_url(postgres_url).set(**change, password="s3cret")  # type: ignore[arg-type] # both are strings

    assert refusal(url.render_as_string(hide_password=False)).code is Code.DATABASE_UNAVAILABLE


def test_a_database_that_is_not_utf8_is_refused(postgres_url: str) -> None:
    name = f"{make_url(postgres_url).database}_latin"
    make = f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'"
    with closing(connect(postgres_url)) as connection:
        connection.execute(f"{make} LOCALE_PROVIDER libc".encode())

    error = refusal(make_url(postgres_url).set(database=name).render_as_string(hide_password=False))

    assert error.code is Code.SETTINGS_INVALID
    with closing(connect(postgres_url)) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_a_database_of_another_program_is_refused(postgres_url: str) -> None:
    with closing(connect(postgres_url)) as connection:
        connection.execute("CREATE TABLE journal (a TEXT)")

    assert refusal(postgres_url).code is Code.STATE_CONFLICT


def test_the_order_of_arrival_is_the_order_of_the_batch(open_hub: Open) -> None:
    store = open_hub()
    seqs = [(number * 7919) % 1009 for number in range(1009)]
    with store.begin() as work:
        work.telemetry.add(
            [Measurement(ROW.device, "e", seq + 1, "m", "o", AT, AT, b"x") for seq in seqs]
        )

        found = work.telemetry.tail(TelemetryFilter(limit=None))
        assert [row.seq - 1 for row in found] == seqs
