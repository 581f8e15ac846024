"""SIGKILL of hub, agents and modules at random moments under telemetry, judged by a ledger outside.

What the hub acknowledged is stored, what is stored was sent, nothing is stored twice, each device's
records arrive in order, and everything sent arrives in the end.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from plant import Plant, plant, wait_for

from hub.demo.digits import Digits

DEVICES = ("press-1", "press-2")
PER_SECOND = 80  # of both devices; a fault under less than 50/s would prove nothing


class Camera(threading.Thread):
    """Feeds all devices at a steady rate and writes down what it gave, before it gives it."""

    def __init__(self, works: Plant) -> None:
        super().__init__(daemon=True)
        self._works = works
        self._halt = threading.Event()
        self.sent: list[tuple[str, str]] = []

    def run(self) -> None:
        frames = list(self._works.digits.frames.items())
        with (self._works.folder / "sent").open("a") as ledger:
            number = 0
            while not self._halt.wait(1 / PER_SECOND):
                device = DEVICES[number % len(DEVICES)]
                label, frame = frames[number % len(frames)]
                name = f"{number:06d}.{label}"
                ledger.write(f"{device} {name}\n")
                ledger.flush()
                self._works.feed(device, name, frame)
                self.sent.append((device, name))
                number += 1

    def finish(self) -> None:
        self._halt.set()
        self.join()


def strike(works: Plant, random: Random) -> str:
    """Kill one process at random and bring back what nobody else brings back."""
    victim = random.choice(["hub", *DEVICES, *(f"module of {device}" for device in DEVICES)])
    if victim.startswith("module of "):
        device = victim.removeprefix("module of ")
        for pid in works.module_pids(device):
            os.kill(pid, signal.SIGKILL)
        return "module"
    pids = {device: works.module_pids(device) for device in DEVICES}
    works.kill(victim)
    time.sleep(random.uniform(0, 0.5))
    if victim == "hub":
        works.start_hub()
    else:
        assert works.module_pids(victim) == pids[victim], "a module died with its agent"
        works.start_agent(victim)
    return "hub" if victim == "hub" else "agent"


@pytest.mark.e2e
@pytest.mark.timeout(0)
def test_chaos_loses_and_doubles_nothing(tmp_path: Path, digits: Digits, kills: int) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    random = Random(seed)  # noqa: S311 - a test's dice
    print(f"seed {seed}")
    with plant(tmp_path, digits) as works:
        works.start_hub()
        for device in DEVICES:
            works.enroll(device)
            works.start_agent(device)
        works.deploy("v1", works.package(works.register()))
        works.wait_deployed("v1", len(DEVICES))
        camera, struck = Camera(works), Counter[str]()
        began = time.monotonic()
        camera.start()
        for _ in range(kills):
            time.sleep(random.uniform(0.2, 1.2))
            struck[strike(works, random)] += 1
        elapsed = time.monotonic() - began
        camera.finish()
        wait_for("everything stored", lambda: len(works.database()) >= len(camera.sent))
        wait_for("everything acknowledged", lambda: acknowledged(works) >= len(camera.sent), 30)
        judge(works, camera, len(camera.sent) / elapsed)
        print(f"{sum(struck.values())} kills {dict(struck)}, {len(camera.sent)} records, none lost")


def acknowledged(works: Plant) -> int:
    return sum(len(works.ledger(device)) for device in DEVICES)


def judge(works: Plant, camera: Camera, rate: float) -> None:
    rows = works.database()
    keys = [(device, epoch, seq) for device, epoch, seq, _ in rows]
    inputs = Counter((device, name) for device, _, _, name in rows)
    promised = {(device, *key) for device in DEVICES for key in works.ledger(device)}

    assert rate >= 50, "too little telemetry to prove anything"
    assert promised <= set(keys), "an acknowledged record is not stored"
    assert len(keys) == len(set(keys))
    assert set(inputs) == set(camera.sent), "lost, or never sent"
    assert max(inputs.values()) == 1, "an input was answered twice"
    for device in DEVICES:
        mine = [seq for owner, _, seq, _ in rows if owner == device]
        assert mine == sorted(mine), "out of order"
        assert len(works.module_pids(device)) == 1
