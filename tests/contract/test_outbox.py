"""Every outbox, in memory and on disk: the same promises, and for the disk what it survives."""

from __future__ import annotations

import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.adapters.clock import SystemClock
from agent.adapters.sqlite_file import KEPT_DAMAGED_FILES
from agent.adapters.sqlite_store import NewRecord, SqliteStore
from agent.core.ports import Outbox, OutboxCounts, OutboxRecord, StateStore
from protocol.errors import Code, ConflictError, FleetError
from simulator.memory_outbox import MemoryOutbox, MemoryState

ROOT = Path(__file__).resolve().parents[2]
KILLS = 5


def put(outbox: Outbox, count: int = 1) -> list[int]:
    return [outbox.add("camera", "out", 5, b"body-%d" % n, {"n": str(n)}) for n in range(count)]


def seqs(outbox: Outbox, *, after: int = 0, limit: int = 10_000) -> list[int]:
    return [record.seq for record in outbox.waiting(after=after, limit=limit)]


@pytest.fixture(params=["memory", "sqlite"])
def outbox(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Outbox]:
    if request.param == "memory":
        yield MemoryOutbox("0123456789abcdef")
        return
    store = SqliteStore(tmp_path / "agent.db", SystemClock())
    yield store
    store.close()


@pytest.fixture(params=["memory", "sqlite"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StateStore]:
    if request.param == "memory":
        yield MemoryState()
        return
    store = SqliteStore(tmp_path / "agent.db", SystemClock())
    yield store
    store.close()


# ---- every outbox -------------------------------------------------------------------------------


def test_numbers_count_from_one_without_gaps(outbox: Outbox) -> None:
    assert put(outbox, 3) == [1, 2, 3]


def test_what_was_added_waits_as_it_was(outbox: Outbox) -> None:
    outbox.add("camera", "öut", 7, b"\x00\xff", {"k": "v", "ü": ""})

    assert list(outbox.waiting(after=0, limit=10)) == [
        OutboxRecord(1, "camera", "öut", 7, b"\x00\xff", {"k": "v", "ü": ""})
    ]


def test_waiting_records_come_in_order_after_a_number_up_to_a_limit(outbox: Outbox) -> None:
    put(outbox, 9)

    assert seqs(outbox, after=3, limit=4) == [4, 5, 6, 7]


def test_acknowledged_ranges_are_inclusive_and_leave(outbox: Outbox) -> None:
    put(outbox, 9)

    assert outbox.acknowledge([(1, 2), (5, 5), (8, 20)], []) == 5
    assert seqs(outbox) == [3, 4, 6, 7]


def test_refused_records_leave_and_are_counted_apart(outbox: Outbox) -> None:
    put(outbox, 4)

    outbox.acknowledge([(1, 2)], [2, 4, 99])

    assert outbox.counts() == OutboxCounts(stored=4, acknowledged=2, refused=1, waiting=1)


def test_acknowledging_twice_counts_once(outbox: Outbox) -> None:
    put(outbox, 2)
    outbox.acknowledge([(1, 2)], [])

    assert outbox.acknowledge([(1, 2)], [1]) == 0
    assert outbox.counts().acknowledged == 2


@pytest.mark.parametrize("bounds", [(2, 1), (-5, 0), (0, 0), (2**70, 2**71), (-(2**70), -1)])
def test_ranges_that_name_nothing_remove_nothing(outbox: Outbox, bounds: tuple[int, int]) -> None:
    put(outbox, 2)

    assert outbox.acknowledge([bounds], []) == 0
    assert seqs(outbox) == [1, 2]


def test_an_enormous_range_removes_what_is_there(outbox: Outbox) -> None:
    put(outbox, 2)

    assert outbox.acknowledge([(-(2**70), 2**70)], []) == 2


def test_numbers_are_not_given_twice_when_everything_left(outbox: Outbox) -> None:
    put(outbox, 3)
    outbox.acknowledge([(1, 3)], [])

    assert put(outbox) == [4]


def test_an_answered_input_is_noted_with_its_answer(outbox: Outbox) -> None:
    before = outbox.is_consumed("a.json")
    outbox.add("m", "o", 1, b"", {}, consumed="a.json")

    assert (before, outbox.is_consumed("a.json"), outbox.is_consumed("b.json")) == (
        False,
        True,
        False,
    )


def test_an_input_is_never_answered_twice(outbox: Outbox) -> None:
    outbox.add("m", "o", 1, b"", {}, consumed="a.json")

    with pytest.raises(ConflictError) as caught:
        outbox.add("m", "o", 1, b"", {}, consumed="a.json")

    assert caught.value.code is Code.STATE_CONFLICT
    assert (seqs(outbox), put(outbox)) == ([1], [2])


def test_notes_about_inputs_can_be_dropped(outbox: Outbox) -> None:
    outbox.add("m", "o", 1, b"", {}, consumed="a.json")

    outbox.forget_consumed(["a.json", "never-seen"])

    assert not outbox.is_consumed("a.json")


def test_an_epoch_is_sixteen_hexadecimal_digits(outbox: Outbox) -> None:
    assert re.fullmatch("[0-9a-f]{16}", outbox.epoch)


def test_values_are_kept_replaced_and_removed_together(state: StateStore) -> None:
    state.put({"a": b"1", "b": b"2"})
    state.put({"a": b"3", "b": None, "c": b"", "never": None})

    assert [state.get(key) for key in ("a", "b", "c", "d")] == [b"3", None, b"", None]


# ---- against a model ----------------------------------------------------------------------------

names = st.sampled_from(["a", "b", "c"])
numbers = st.integers(-2, 40)


class StoreMachine(RuleBasedStateMachine):
    """The file must do what the memory does, opened anew at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.real = SqliteStore(self.folder / "agent.db", SystemClock())
        self.model = MemoryOutbox(self.real.epoch)

    @rule(
        body=st.binary(max_size=20),
        properties=st.dictionaries(st.text(max_size=3), st.text(max_size=3)),
    )
    def add(self, body: bytes, properties: dict[str, str]) -> None:
        expected = self.model.add("m", "o", 1, body, properties)

        assert self.real.add("m", "o", 1, body, properties) == expected

    @rule(name=names)
    def add_consuming(self, name: str) -> None:
        def attempt(outbox: Outbox) -> int | None:
            try:
                return outbox.add("m", "o", 1, b"", {}, consumed=name)
            except ConflictError:
                return None

        assert attempt(self.real) == attempt(self.model)

    @rule(bodies=st.lists(st.binary(max_size=5), max_size=4))
    def add_many(self, bodies: list[bytes]) -> None:
        expected = [self.model.add("m", "o", 1, body, {}) for body in bodies]

        assert (
            list(self.real.add_many([NewRecord("m", "o", 1, body, {}) for body in bodies]))
            == expected
        )

    @rule(
        ranges=st.lists(st.tuples(numbers, numbers), max_size=3),
        refused=st.lists(numbers, max_size=3),
    )
    def acknowledge(self, ranges: list[tuple[int, int]], refused: list[int]) -> None:
        assert self.real.acknowledge(ranges, refused) == self.model.acknowledge(ranges, refused)

    @rule(found=st.lists(names, max_size=2))
    def forget(self, found: list[str]) -> None:
        self.real.forget_consumed(found)
        self.model.forget_consumed(found)

    @precondition(lambda self: self.model.counts().stored)
    @rule()
    def open_anew(self) -> None:
        self.real.reopen()

    @invariant()
    def they_agree(self) -> None:
        assert self.real.waiting(after=0, limit=500) == self.model.waiting(after=0, limit=500)
        assert self.real.counts() == self.model.counts()
        assert all(self.real.is_consumed(name) == self.model.is_consumed(name) for name in "abc")
        assert not self.real.recovered_from_damage
        assert self.real.epoch == self.model.epoch

    def teardown(self) -> None:
        self.real.close()
        shutil.rmtree(self.folder)


TestStoreAgainstModel = StoreMachine.TestCase
TestStoreAgainstModel.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)


# ---- the file -----------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "agent.db"


OpenStore = Callable[..., SqliteStore]


@pytest.fixture
def opened(path: Path) -> Iterator[OpenStore]:
    stores: list[SqliteStore] = []

    def open_store(**options: int) -> SqliteStore:
        stores.append(SqliteStore(path, SystemClock(), **options))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


def refusal(call: Callable[[], object]) -> Code:
    with pytest.raises(FleetError) as caught:
        call()
    return caught.value.code


def test_everything_is_there_after_it_was_opened_anew(opened: OpenStore) -> None:
    first = opened()
    put(first, 3)
    first.put({"k": b"v"})
    first.close()

    second = opened()

    assert (second.epoch, seqs(second), second.get("k"), put(second)) == (
        first.epoch,
        [1, 2, 3],
        b"v",
        [4],
    )


def test_every_new_store_has_another_epoch(tmp_path: Path) -> None:
    stores = [SqliteStore(tmp_path / str(n) / "agent.db", SystemClock()) for n in range(3)]
    for store in stores:
        store.close()

    assert len({store.epoch for store in stores}) == 3


def test_many_are_stored_together_or_not_at_all(opened: OpenStore) -> None:
    store = opened()
    twice = [NewRecord("m", "o", 1, b"", {}, consumed="a")] * 2

    assert refusal(lambda: store.add_many(twice)) is Code.STATE_CONFLICT
    assert (seqs(store), store.is_consumed("a"), put(store)) == ([], False, [1])


def test_the_file_is_for_the_agent_alone_and_synced_on_every_commit(
    opened: OpenStore, path: Path
) -> None:
    store = opened()
    put(store)

    modes = {file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    [synchronous] = store._connection.execute("PRAGMA synchronous").fetchone()
    [journal] = store._connection.execute("PRAGMA journal_mode").fetchone()
    assert (modes, synchronous, journal) == ({0o600}, 2, "wal")


def test_a_newer_store_is_refused_and_left_alone(opened: OpenStore, path: Path) -> None:
    opened().close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()

    assert refusal(opened) is Code.DATABASE_NEWER
    assert path.read_bytes() == before


def test_a_store_that_reached_its_limit_takes_messages_again_once_some_left(
    opened: OpenStore,
) -> None:
    store = opened(limit_bytes=200_000)

    def fill() -> None:
        while True:
            store.add("m", "o", 1, b"x" * 1000, {})

    assert refusal(fill) is Code.DISK_FULL
    stored = store.counts().stored
    store.put({"floor": b"still accepted"})
    store.acknowledge([(1, stored)], [])

    assert put(store) == [stored + 1]


def test_a_full_disk_is_said_and_loses_nothing_that_was_confirmed(opened: OpenStore) -> None:
    store = opened()
    [pages] = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages + 4}")
    confirmed: list[int] = []

    def fill() -> None:
        while True:
            confirmed.append(store.add("m", "o", 1, b"x" * 3000, {}, consumed=str(len(confirmed))))

    assert refusal(fill) is Code.DISK_FULL
    store._connection.execute("PRAGMA max_page_count = 100000")

    assert confirmed
    assert seqs(store) == confirmed
    assert put(store) == [confirmed[-1] + 1]


FAILING_CHILD = """
import resource, sys
from pathlib import Path
from agent.adapters.clock import SystemClock
from agent.adapters.sqlite_store import SqliteStore
from protocol.errors import FleetError
store = SqliteStore(Path(sys.argv[1]), SystemClock())
def attempt():
    try:
        print("added", store.add("m", "o", 1, b"x" * 3000, {}), flush=True)
    except FleetError as error:
        print("refused", error.code, flush=True)
        return False
    return True
attempt()
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
while attempt():
    pass
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
attempt()
store.reopen()
attempt()
"""


def child(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def test_after_an_input_output_error_nothing_is_confirmed_until_opened_anew(
    opened: OpenStore, path: Path
) -> None:
    # A file size limit makes real writes of a real process fail with an I/O error.
    output, _ = child(FAILING_CHILD, str(path)).communicate(timeout=30)
    lines = output.split("\n")[:-1]
    confirmed = [int(line.split()[1]) for line in lines if line.startswith("added")]

    assert lines[-3:-1] == ["refused database-unavailable"] * 2
    assert lines[-1].startswith("added")
    assert set(confirmed) <= set(seqs(opened()))


KILLED_CHILD = """
import sys
from pathlib import Path
from agent.adapters.clock import SystemClock
from agent.adapters.sqlite_store import SqliteStore
store = SqliteStore(Path(sys.argv[1]), SystemClock())
while True:
    seq = store.counts().stored + 1
    print(store.add("m", "o", 1, b"%d" % seq, {}, consumed=str(seq)), flush=True)
"""


def test_kills_at_random_moments_lose_and_repeat_nothing(opened: OpenStore, path: Path) -> None:
    generator = random.Random(20300101)  # noqa: S311 - moments, not secrets
    confirmed: list[int] = []
    for _ in range(KILLS):
        process = child(KILLED_CHILD, str(path))
        assert process.stdout is not None
        lines = range(generator.randrange(20, 400))
        confirmed += [int(process.stdout.readline()) for _ in lines]
        process.send_signal(signal.SIGKILL)
        confirmed += [int(line) for line in process.stdout.read().splitlines()]
        process.stdout.close()
        process.wait()

    store = opened()
    records = store.waiting(after=0, limit=1_000_000)
    stored = [record.seq for record in records]

    assert len(confirmed) == len(set(confirmed)) > KILLS * 20
    assert set(confirmed) <= set(stored)
    assert stored == list(range(1, stored[-1] + 1))
    assert all(record.body == b"%d" % record.seq for record in records)
    assert not store.recovered_from_damage


# ---- damage -------------------------------------------------------------------------------------


def filled(opened: OpenStore, count: int = 60) -> SqliteStore:
    store = opened()
    put(store, count)
    store.put({"k": b"v"})
    store.close()
    return store


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 400])
def test_a_damaged_file_is_set_aside_and_a_new_life_begins(
    opened: OpenStore, path: Path, content: bytes
) -> None:
    old = filled(opened)
    path.write_bytes(content)

    store = opened()

    assert store.recovered_from_damage
    assert store.set_aside is not None
    assert store.set_aside.name.startswith("agent.db.damaged-")
    assert store.set_aside.read_bytes() == content
    assert store.epoch != old.epoch
    assert put(store) == [1]


def test_a_lost_file_beside_its_log_counts_as_damage(opened: OpenStore, path: Path) -> None:
    store = opened()
    put(store)
    copy = path.with_name("copy-wal")
    shutil.copy(path.with_name("agent.db-wal"), copy)
    store.close()
    path.unlink()
    copy.rename(path.with_name("agent.db-wal"))

    again = opened()

    assert (again.recovered_from_damage, seqs(again)) == (True, [])


def test_only_a_few_damaged_files_are_kept(opened: OpenStore, path: Path) -> None:
    for _ in range(KEPT_DAMAGED_FILES + 2):
        opened().close()
        path.write_bytes(b"rubbish")
    opened()

    assert len(list(path.parent.glob("agent.db.damaged-*Z"))) == KEPT_DAMAGED_FILES


def test_a_file_cut_anywhere_still_opens(opened: OpenStore, path: Path) -> None:
    filled(opened)
    whole = path.read_bytes()

    for size in range(0, len(whole), 2048):
        path.write_bytes(whole[:size])
        store = opened()
        assert store.recovered_from_damage, size
        assert put(store) == [1]
        store.close()


def test_flipped_bits_never_stop_the_store_nor_change_a_message(
    opened: OpenStore, path: Path
) -> None:
    filled(opened)
    whole = path.read_bytes()
    mark = path.with_name("agent.db-mark").read_bytes()
    generator = random.Random(7)  # noqa: S311 - places, not secrets
    expected = {b"body-%d" % n: {"n": str(n)} for n in range(60)}

    for _ in range(60):
        position = generator.randrange(100, len(whole))  # beyond the header, see database-newer
        flipped = bytearray(whole)
        flipped[position] ^= 1 << generator.randrange(8)
        path.write_bytes(flipped)
        path.with_name("agent.db-mark").write_bytes(mark)
        store = opened()
        records = store.waiting(after=0, limit=100)
        assert all(expected[record.body] == record.properties for record in records), position
        assert store.get("k") in (b"v", None)
        assert len(records) + store.lost == 60 or store.set_aside, position
        put(store)
        store.close()


def test_a_log_cut_short_gives_no_number_twice(opened: OpenStore, path: Path) -> None:
    store = opened()
    put(store, 20)
    log = path.with_name("agent.db-wal")
    saved = {file: file.read_bytes() for file in path.parent.iterdir()}
    store.close()
    for file, content in saved.items():
        file.write_bytes(content)
    log.write_bytes(saved[log][: len(saved[log]) // 2])

    again = opened()

    assert 0 < len(seqs(again)) < 20
    assert again.lost == 20 - len(seqs(again)) == again.counts().refused
    assert (again.recovered_from_damage, again.epoch, put(again)) == (True, store.epoch, [21])
