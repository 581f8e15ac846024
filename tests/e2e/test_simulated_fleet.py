"""Simulated devices, enrolled the way the help of `python -m simulator` says."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from plant import ROOT, plant, wait_for

from hub.demo.digits import Digits

NAMES = ["sim-01", "sim-02"]


@pytest.mark.e2e
def test_what_invite_writes_enrols_and_runs_simulated_devices(
    tmp_path: Path, digits: Digits
) -> None:
    with plant(tmp_path, digits) as works:
        works.start_hub()
        assert works.client
        context = {"RIMWARD_CONTEXT": str(works.admin)}
        invited = [
            works.run("hub", "device", "invite", name, "-o", "json", **context).stdout
            for name in NAMES
        ]
        with subprocess.Popen(
            [sys.executable, "-m", "simulator", "--home", str(tmp_path / "fleet"), "--claims", "-"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as fleet:
            assert fleet.stdin is not None
            assert fleet.stdout is not None
            fleet.stdin.write("".join(invited).encode())
            fleet.stdin.close()
            told = json.loads(fleet.stdout.readline())
            wait_for(
                "both devices",
                lambda: (
                    [d["id"] for d in works.client.get("/api/v1/devices") if d["connected"]]
                    == NAMES
                ),
            )
            fleet.send_signal(signal.SIGTERM)

            assert told == {"devices": len(NAMES)}
            assert fleet.wait(30) == 0
