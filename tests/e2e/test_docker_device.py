"""A device whose modules are containers, on a base image made from Debian packages."""

from __future__ import annotations

import os
from pathlib import Path

import docker
import pytest
from plant import plant, wait_for
from requirements_gate import require

from hub.demo.digits import Digits
from hub.demo.engine import answers

FRAMES = 20


@pytest.mark.e2e
@pytest.mark.docker
def test_a_container_infers_and_survives_its_agent(tmp_path: Path, digits: Digits) -> None:
    require("docker", answers(), "no engine answers at DOCKER_HOST")
    engine = {"DOCKER_HOST": os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")}
    with plant(tmp_path, digits) as works:
        works.start_hub()
        works.enroll("box-1", runtime="docker")
        works.start_agent("box-1", **engine)
        works.deploy("v1", works.package(works.register(), base="debian"))
        works.wait_deployed("v1", 1)
        sent = works.feed_all("box-1", FRAMES)
        wait_for("the inferences", lambda: works.stored() >= FRAMES)
        before = containers()

        # The module outlives its agent; the next agent finds it and goes on with it.
        works.kill("box-1")
        assert containers() == before
        works.start_agent("box-1", **engine)
        sent += works.feed_all("box-1", FRAMES, start=FRAMES)
        wait_for("more inferences", lambda: works.stored() >= 2 * FRAMES)

        # A bad version is proved beside the good one, refused, and gone.
        bad = works.package(works.register(good=False), base="debian")
        works.deploy("v2", bad, priority=1)
        wait_for("the refusal", lambda: works.deployment("v2")["state"] == "aborted")
        wait_for("the good one alone", lambda: containers() == before)

        assert len(before) == 1
        assert works.score(sent)["box-1"]["accuracy"] >= 0.9
        assert [name for *_, name in works.database()] == sent


def containers() -> set[str]:
    client = docker.from_env()
    try:
        labels = {"label": "io.rimward.device=box-1"}
        return {found.id for found in client.containers.list(filters=labels)}
    finally:
        client.close()
