"""Where tests get their databases from.

`postgres_url` names a fresh schema per test. The server is the one RIMWARD_TEST_POSTGRES names
(a URL of its superuser), or a throw-away cluster when PostgreSQL is installed.
"""

from __future__ import annotations

import contextlib
import getpass
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from requirements_gate import require
from sqlalchemy import make_url

from hub.adapters.clock import SystemClock
from hub.adapters.memory import MemoryStore
from hub.adapters.sql.store import open_store
from hub.core.ports import Store

_START_SECONDS = 60.0
_SCHEMAS = itertools.count(1)


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Yield an empty store of each kind."""
    made: Store
    if request.param == "memory":
        made = MemoryStore()
    elif request.param == "sqlite":
        made = open_store(f"sqlite:///{tmp_path / 'hub.db'}", SystemClock())
    else:
        made = open_store(request.getfixturevalue("postgres_url"), SystemClock())
    yield made
    made.close()


@pytest.fixture
def postgres_url(postgres_database: str) -> Iterator[str]:
    """Yield the URL of a fresh schema, a hub's whole world; it is dropped afterwards."""
    name = f"test_{next(_SCHEMAS)}"
    with _administer(postgres_database) as connection:
        connection.execute(f"CREATE SCHEMA {name}".encode())
        url = make_url(postgres_database).set(query={"options": f"-csearch_path={name}"})
        yield url.render_as_string(hide_password=False)
        connection.execute(f"DROP SCHEMA {name} CASCADE".encode())


@pytest.fixture(scope="session")
def postgres_database(postgres_server: str) -> Iterator[str]:
    """Yield the URL of a fresh database; it is dropped afterwards."""
    name = f"rimward_test_{os.getpid()}"
    with _administer(postgres_server) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'".encode())
        yield make_url(postgres_server).set(database=name).render_as_string(hide_password=False)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Yield the URL of a PostgreSQL server's superuser."""
    if given := os.environ.get("RIMWARD_TEST_POSTGRES"):
        yield given
        return
    binaries = _find_binaries()
    account = _account()
    why = "RIMWARD_TEST_POSTGRES names no server and none can be started here"
    require("postgres", binaries is not None and account is not None, why)
    assert binaries is not None
    assert account is not None
    with _cluster(binaries, account) as url:
        yield url


@contextlib.contextmanager
def _administer(url: str) -> Iterator[psycopg.Connection]:
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True, connect_timeout=5) as connection:
        yield connection


def _find_binaries() -> Path | None:
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None, key=_major)


def _major(binaries: Path) -> int:
    return int(binaries.parent.name)


@contextlib.contextmanager
def _cluster(binaries: Path, account: str) -> Iterator[str]:
    """Run a PostgreSQL server on a free port until the block ends."""
    # pytest's folders belong to the user who runs it; the server may be somebody else.
    folder = Path(tempfile.mkdtemp(prefix="rimward-postgres-"))
    shutil.chown(folder, account)
    log = (folder / "log").open("wb")
    try:
        data = folder / "data"
        # Sorting by the rules of a language proves that the schema does not depend on them.
        words = "--locale-provider=icu --icu-locale=en-US --encoding=UTF8 --auth=trust -U postgres"
        subprocess.run(
            [binaries / "initdb", "-D", data, "--no-sync", *words.split()],
            check=True,
            stdout=log,
            stderr=log,
            cwd=folder,
            user=account,
            timeout=_START_SECONDS,
        )
        port = _free_port()
        server = subprocess.Popen(
            [
                binaries / "postgres",
                "-D",
                data,
                "-p",
                str(port),
                "-k",
                folder,
                "-F",
                "-c",
                "listen_addresses=127.0.0.1",
            ],
            stdout=log,
            stderr=log,
            cwd=folder,
            user=account,
        )
        try:
            url = f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
            _wait_for(url, server, folder / "log")
            yield url
        finally:
            server.send_signal(signal.SIGINT)  # the fast way down: sessions are ended
            server.wait(_START_SECONDS)
    finally:
        log.close()
        shutil.rmtree(folder)


def _account() -> str | None:
    """Return who can run the server, if anybody: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return getpass.getuser()
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres").pw_name
    return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            with _administer(url):
                return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"PostgreSQL did not start:\n{log.read_text()}")
            time.sleep(0.05)
