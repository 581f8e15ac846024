"""One setting puts Mosquitto between hub and devices; agents cannot tell the difference."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from plant import free_port, plant, wait_for
from requirements_gate import require

from hub.demo.digits import Digits

FRAMES = 40


@contextmanager
def mosquitto(configuration: Path) -> Iterator[None]:
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    require("broker", program is not None, "no 'mosquitto' on PATH")
    assert program is not None
    # Mosquitto gives up root for a user that cannot read a test's folder.
    configuration.write_text("user root\n" + configuration.read_text())
    with (configuration.parent / "log").open("wb") as log:
        process = subprocess.Popen([program, "-c", str(configuration)], stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.e2e
@pytest.mark.broker
def test_the_main_job_runs_over_an_external_broker(tmp_path: Path, digits: Digits) -> None:
    port, folder = free_port(), tmp_path / "broker"
    with plant(tmp_path, digits, broker=f"mqtts://127.0.0.1:{port}") as works:
        data = str(tmp_path / "hub")
        made = works.run(
            "hub", "hub", "broker-config", str(folder), "--data", data, "--port", str(port)
        )
        assert made.returncode == 0, made.stderr
        with mosquitto(folder / "mosquitto.conf"):
            works.start_hub()
            works.enroll("press-1")
            works.start_agent("press-1")
            works.deploy("v1", works.package(works.register()))
            works.wait_deployed("v1", 1)
            sent = works.feed_all("press-1", FRAMES)
            wait_for("the inferences", lambda: works.stored() >= FRAMES)
            # A version that answers wrongly is refused over this road, too.
            works.deploy("v2", works.package(works.register(good=False)), priority=1, waves="1")
            wait_for("the refusal", lambda: works.deployment("v2")["state"] == "aborted")

            assert [name for *_, name in works.database()] == sent
            assert works.score(sent)["press-1"]["accuracy"] >= 0.9
            works.client.post("/api/v1/devices/press-1/retire")
            works.feed_all("press-1", 5, start=FRAMES)
            wait_for(
                "the retired device to wait",
                lambda: len(list((works.home("press-1") / "inputs" / "digits").iterdir())) == 0,
            )
            assert works.stored() == FRAMES
