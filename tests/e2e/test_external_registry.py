"""One setting puts images into somebody else's registry; devices pull from there by password."""

from __future__ import annotations

from pathlib import Path

import pytest
from foreign_registry import LOGIN, Running
from plant import plant, wait_for

from hub.demo.digits import Digits

FRAMES = 20


@pytest.mark.e2e
@pytest.mark.registry
def test_the_main_job_runs_over_an_external_registry(
    tmp_path: Path, digits: Digits, docker_registry: Running
) -> None:
    url = f"https://{LOGIN.username}:{LOGIN.password}@{docker_registry.authority}"
    options = {"registry": url, "registry-ca": str(docker_registry.ca_file)}
    with plant(tmp_path, digits, **options) as works:
        works.start_hub()
        works.enroll("press-1")
        works.start_agent("press-1")
        works.deploy("v1", works.package(works.register()))
        works.wait_deployed("v1", 1)
        sent = works.feed_all("press-1", FRAMES)
        wait_for("the inferences", lambda: works.stored() >= FRAMES)

        image = works.client.get("/api/v1/images/digits-image:1")
        device = works.client.get("/api/v1/devices/press-1")
        assert image["reference"].startswith(f"{docker_registry.authority}/digits-image@sha256:")
        assert device["reported"]["modules"]["digits"]["settings"]["image"] == image["reference"]
        assert device["reported"]["x-bytesPulled"] > 1_000_000
        assert works.score(sent)["press-1"]["accuracy"] >= 0.9
        assert LOGIN.password not in (tmp_path / "hub.log").read_text()


@pytest.mark.e2e
@pytest.mark.registry
def test_a_wrong_registry_password_fails_the_image_with_its_reason(
    tmp_path: Path, digits: Digits, docker_registry: Running
) -> None:
    url = f"https://{LOGIN.username}:wrong@{docker_registry.authority}"
    options = {"registry": url, "registry-ca": str(docker_registry.ca_file)}
    with plant(tmp_path, digits, **options) as works:
        works.start_hub()
        model = works.register()
        body = {"name": "digits-image", "models": [model], "base": "host"}
        works.client.post("/api/v1/images", body)
        wait_for(
            "the failure",
            lambda: works.client.get("/api/v1/images/digits-image:1")["state"] == "failed",
        )

        image = works.client.get("/api/v1/images/digits-image:1")
        assert image["errorCode"] == "registry-refused"
        assert image["errorHint"]
