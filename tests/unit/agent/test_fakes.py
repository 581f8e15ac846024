from __future__ import annotations

import asyncio

from simulator.fakes import ManualClock


def test_a_sleeper_moves_the_time_itself() -> None:
    clock = ManualClock()
    before = clock.now()

    asyncio.run(clock.sleep(90))

    assert ((clock.now() - before).total_seconds(), clock.monotonic()) == (90, 90)
    assert clock.slept == [90]


def test_sleepers_of_a_shared_clock_wake_in_order() -> None:
    async def scenario() -> list[str]:
        clock, woken = ManualClock(waits=True), list[str]()

        async def sleeper(name: str, seconds: float) -> None:
            await clock.sleep(seconds)
            woken.append(name)

        async with asyncio.TaskGroup() as group:
            for name, seconds in (("late", 20), ("early", 10), ("never", 99)):
                group.create_task(sleeper(name, seconds))
            await asyncio.sleep(0)
            clock.advance(9)
            await asyncio.sleep(0)
            assert woken == []
            clock.advance(11)
            await asyncio.sleep(0)
            assert woken == ["early", "late"]
            clock.advance(100)
        return woken

    assert asyncio.run(scenario()) == ["early", "late", "never"]


def test_others_run_while_one_sleeps() -> None:
    async def scenario() -> list[int]:
        clock, seen = ManualClock(), list[int]()
        asyncio.get_running_loop().call_soon(seen.append, 1)
        await clock.sleep(0)
        return seen

    assert asyncio.run(scenario()) == [1]
