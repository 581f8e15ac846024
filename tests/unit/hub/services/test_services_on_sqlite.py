"""The rollout story on a real SQLite file, and what many threads do to it at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from hub_lab import Lab, csr, make_lab

from hub.adapters.sql.store import open_store
from hub.core.deployment import DeploymentState, RolloutPolicy, Wave
from protocol.errors import FleetError
from protocol.ids import DeviceId
from protocol.messages import EnrollRequest
from simulator.fakes import ManualClock

FLEET = [f"d-{number:02}" for number in range(12)]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    clock = ManualClock()
    store = open_store(f"sqlite:///{tmp_path / 'hub.db'}", clock, wait_seconds=5)
    yield make_lab(tmp_path, clock, store)
    store.close()


def test_a_bad_version_goes_back(lab: Lab) -> None:
    lab.register()
    for name in FLEET:
        lab.enroll(name)
    lab.deploy("v1", lab.image())
    for name in FLEET:
        lab.report(name)
    lab.register(data=b"bad")
    lab.deploy("v2", lab.image(), policy=RolloutPolicy((Wave(1),)))
    lab.report(FLEET[0], failed="golden-mismatch")

    assert lab.services.deployments.get("v2").state is DeploymentState.ABORTED
    assert [lab.version(name) for name in FLEET] == [3] + [1] * 11
    assert lab.opened(FLEET[0]).deployment == "v1"


def test_reports_at_the_same_time_are_all_counted(lab: Lab) -> None:
    lab.register()
    for name in FLEET:
        lab.enroll(name)
    lab.deploy("v1", lab.image(), policy=RolloutPolicy((Wave(6),)))

    with ThreadPoolExecutor(6) as pool:
        for half in (FLEET[:6], FLEET[6:]):
            assert len(list(pool.map(lab.report, half))) == 6

    assert lab.services.deployments.get("v1").state is DeploymentState.DONE
    assert set(lab.states("v1").values()) == {"succeeded"}
    assert {lab.version(name) for name in FLEET} == {1}


def test_one_claim_enrols_once_however_many_try(lab: Lab) -> None:
    claim = lab.services.devices.invite("press-7", tags={}, life=timedelta(hours=1)).split(".")[3]
    request = EnrollRequest(claim, csr(), "laptop", "1")

    def enroll(_number: int) -> bool:
        try:
            lab.services.devices.enroll(request)
        except FleetError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(enroll, range(6))) == 1
    assert lab.services.devices.get("press-7").id == DeviceId("press-7")
