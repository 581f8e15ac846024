"""Whoever ends the demo early is left with nothing that runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from plant import ROOT, wait_for


def running_below(folder: Path) -> list[int]:
    """Return the processes whose command line names the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(folder) in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # it ended meanwhile
            continue
    return found


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_demo_that_is_told_to_end_takes_its_processes_along(
    tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RIMWARD_")}
    with (tmp_path / "log").open("wb") as log:
        demo = subprocess.Popen(
            [sys.executable, "-m", "hub", "demo", "--summary", str(tmp_path / "summary.json")],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**environment, "TMPDIR": str(folder)},
            start_new_session=True,
        )
    wait_for("the demo's hub", lambda: list(folder.glob("*/hub/admin.json")))
    assert running_below(folder)

    demo.send_signal(number)

    assert demo.wait(60) != 0
    assert running_below(folder) == []
    assert "Traceback" not in (tmp_path / "log").read_text()
