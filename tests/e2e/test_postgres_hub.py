"""One setting puts the hub's state into PostgreSQL; a killed hub goes on from there."""

from __future__ import annotations

from pathlib import Path

import pytest
from plant import plant, wait_for

from hub.demo.digits import Digits

pytest_plugins = ["store_fixtures"]
FRAMES = 60


@pytest.mark.e2e
@pytest.mark.postgres
def test_the_main_job_runs_on_postgres(tmp_path: Path, digits: Digits, postgres_url: str) -> None:
    with plant(tmp_path, digits, database=postgres_url) as works:
        works.start_hub()
        works.enroll("press-1")
        works.start_agent("press-1")
        works.deploy("v1", works.package(works.register()))
        works.wait_deployed("v1", 1)
        sent = works.feed_all("press-1", FRAMES)
        wait_for("some inferences", lambda: works.stored() >= FRAMES // 4)
        works.kill("hub")
        works.start_hub()
        wait_for("all inferences", lambda: works.stored() >= FRAMES)

        rows = works.client.get("/api/v1/telemetry", limit=1000)
        assert [row["properties"]["input"] for row in rows] == sent
        assert works.score(sent)["press-1"]["accuracy"] >= 0.9
        assert not (tmp_path / "hub" / "hub.db").exists()
