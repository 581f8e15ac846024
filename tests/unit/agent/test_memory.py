"""What the agent knows across restarts, also when some of it is lost."""

from __future__ import annotations

import pytest
from agent_world import START, Disk, desired, envelope, trust

from agent.core.desired import Trust, Version
from agent.core.update import Outcome, State
from agent.memory import Memory
from protocol.errors import Code, FleetError


def installed(disk: Disk, *versions: int) -> Memory:
    memory = Memory(disk, trust())
    for version in versions:
        assert memory.offer(envelope(desired(version)), START)
        while memory.progress is not None and memory.progress.state is not State.DONE:
            memory.step(Outcome.OK)
    return memory


def state_of(memory: Memory) -> tuple[int, int, State | None]:
    good = memory.good.version.version if memory.good else 0
    accepted = memory.accepted.version.version if memory.accepted else 0
    return good, accepted, memory.progress.state if memory.progress else None


def test_a_new_device_knows_nothing() -> None:
    memory = Memory(Disk(), trust())

    assert (state_of(memory), memory.floor) == ((0, 0, None), Version())


def test_everything_is_there_after_a_restart() -> None:
    disk = Disk()
    memory = installed(disk, 1)
    memory.offer(envelope(desired(2)), START)
    memory.step(Outcome.OK)
    memory.count_bytes(7)
    memory.count_bytes(5)
    revision = memory.next_revision()

    again = Memory(disk, trust())

    assert state_of(again) == (1, 2, State.INSTALL)
    assert (again.floor, again.bytes_pulled) == (Version(1, 2), 12)
    assert again.next_revision() > revision
    assert again.good == memory.good


def test_the_same_document_is_accepted_once() -> None:
    memory = installed(Disk(), 1)

    assert not memory.offer(envelope(desired(1)), START)
    assert state_of(memory) == (1, 1, State.DONE)


def test_an_older_document_is_refused_after_a_restart() -> None:
    disk = Disk()
    installed(disk, 1, 2)

    with pytest.raises(FleetError) as caught:
        Memory(disk, trust()).offer(envelope(desired(1)), START)

    assert caught.value.code is Code.VERSION_ROLLED_BACK


def test_a_revision_is_never_used_twice() -> None:
    disk = Disk()
    memory = Memory(disk, trust())
    used = [memory.next_revision() for _ in range(70)]
    memory = Memory(disk, trust())
    used.append(memory.next_revision())
    memory.skip_to_revision(900)
    used.append(memory.next_revision())
    used.append(Memory(disk, trust()).next_revision())

    assert used == sorted(set(used))
    assert used[71] == 901


def test_a_full_disk_can_still_be_reported() -> None:
    disk = Disk()
    memory = Memory(disk, trust())
    memory.next_revision()
    disk.refusals = 99

    assert [memory.next_revision() for _ in range(20)] == list(range(2, 22))


def test_no_revision_is_given_out_that_was_not_reserved() -> None:
    disk = Disk(refusals=1)
    memory = Memory(disk, trust())
    with pytest.raises(FleetError):
        memory.next_revision()

    assert memory.next_revision() == 1


def test_a_lost_copy_of_what_is_good_stops_nothing() -> None:
    disk = Disk()
    before = installed(disk, 1)
    disk.put({"desired/good": None})

    assert Memory(disk, trust()).good == before.good


def test_a_lost_document_is_taken_again() -> None:
    disk = Disk()
    installed(disk, 1)
    disk.put({"desired/accepted": None})
    memory = Memory(disk, trust())

    assert state_of(memory) == (1, 0, None)
    assert memory.offer(envelope(desired(1)), START)
    assert state_of(memory) == (1, 1, State.FETCH)


def test_an_update_whose_place_is_lost_begins_again() -> None:
    disk = Disk()
    installed(disk, 1).offer(envelope(desired(2)), START)
    disk.put({"update": None})

    assert state_of(Memory(disk, trust())) == (1, 2, State.FETCH)


def test_an_update_that_was_done_is_not_done_again_when_its_place_is_lost() -> None:
    disk = Disk()
    installed(disk, 1)
    disk.put({"update": None})

    assert state_of(Memory(disk, trust())) == (1, 1, State.DONE)


def test_documents_of_a_hub_that_is_no_longer_trusted_are_not_used() -> None:
    disk = Disk()
    installed(disk, 1)
    stranger = Trust(trust().device, {"director-1": b"\1" * 32}, trust().verify)

    assert state_of(Memory(disk, stranger)) == (0, 0, None)


def test_a_step_without_an_update_is_a_defect() -> None:
    with pytest.raises(AssertionError):
        Memory(Disk(), trust()).step(Outcome.OK)


def test_a_start_on_a_finished_update_writes_nothing() -> None:
    disk = Disk()
    installed(disk, 1)
    writes = disk.update_writes
    Memory(disk, trust())

    assert disk.update_writes == writes
