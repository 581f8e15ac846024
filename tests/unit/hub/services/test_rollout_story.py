"""Deployments as they happen: waves, failure, the way back, newcomers, silence, supersession."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hub_lab import Lab, code_of, make_lab, module_manifest
from structlog.testing import capture_logs

from hub.core.deployment import DeploymentState, RolloutPolicy, Wave
from hub.core.desired import LIFE
from hub.services.deployments import Draft
from protocol.ids import DeviceId

FLEET = ["d-1", "d-2", "d-3", "d-4", "d-5"]
ONE_FIRST = RolloutPolicy((Wave(1),), silent_seconds=60)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """Return a hub with five devices on version 1."""
    lab = make_lab(tmp_path)
    lab.register()
    for name in FLEET:
        lab.enroll(name, site="plant-7")
    lab.deploy("v1", lab.image())
    for name in FLEET:
        lab.report(name)
    lab.announced.clear()
    return lab


def second(lab: Lab, **more: Any) -> str:
    lab.register(data=b"other")
    return lab.deploy("v2", lab.image(), **({"policy": ONE_FIRST} | more))


def state(lab: Lab, name: str) -> DeploymentState:
    return lab.services.deployments.get(name).state


def wait(lab: Lab, seconds: float) -> None:
    lab.clock.advance(seconds)  # type: ignore[attr-defined]  # the clock of tests
    lab.services.deployments.tick()


def test_without_waves_everyone_gets_it_and_it_is_done(lab: Lab) -> None:
    assert state(lab, "v1") is DeploymentState.DONE
    assert set(lab.states("v1").values()) == {"succeeded"}
    assert {lab.version(name) for name in FLEET} == {1}


def test_a_bad_version_fails_on_one_device_and_goes_back(lab: Lab) -> None:
    with capture_logs() as logs:
        second(lab)
        assert lab.announced == ["d-1"]
        lab.report("d-1", failed="golden-mismatch")

    aborted = lab.services.deployments.get("v2")
    assert aborted.state is DeploymentState.ABORTED
    assert aborted.reason == (
        "wave 1: 1 of 1 devices failed, first 'd-1': golden-mismatch: it does not answer"
    )
    assert aborted.models == ("digits:2",)
    assert [lab.version(name) for name in FLEET] == [3, 1, 1, 1, 1]
    assert lab.opened("d-1").deployment == "v1"
    assert lab.announced == ["d-1", "d-1"]
    events = [each["event"] for each in logs if each["event"].startswith("deployment.")]
    assert events == [
        "deployment.created",
        "deployment.dispatched",
        "deployment.reached",
        "deployment.aborted",
    ]


def test_a_device_that_returns_has_to_prove_it(lab: Lab) -> None:
    second(lab)
    lab.report("d-1", failed="golden-mismatch")

    assert lab.states("v1")["d-1"] == "dispatched"
    lab.report("d-1")
    assert lab.states("v1")["d-1"] == "succeeded"
    assert state(lab, "v1") is DeploymentState.DONE


def test_a_good_version_goes_wave_by_wave(lab: Lab) -> None:
    second(lab, policy=RolloutPolicy((Wave(1), Wave(share=0.4))))

    reached = []
    for _ in range(3):
        on_their_way = [n for n, s in lab.states("v2").items() if s == "dispatched"]
        reached.append(on_their_way)
        for name in on_their_way:
            lab.report(name)

    assert reached == [["d-1"], ["d-2", "d-3"], ["d-4", "d-5"]]
    assert state(lab, "v2") is DeploymentState.DONE


def test_a_soak_is_waited_for(lab: Lab) -> None:
    second(lab, policy=replace(ONE_FIRST, soak_seconds=30))
    lab.report("d-1")

    wait(lab, 29)
    assert lab.states("v2")["d-2"] == "waiting"
    wait(lab, 1)
    assert lab.states("v2")["d-2"] == "dispatched"


def test_silence_is_failure(lab: Lab) -> None:
    second(lab)

    wait(lab, 59)
    assert state(lab, "v2") is DeploymentState.ROLLING
    wait(lab, 1)
    assert state(lab, "v2") is DeploymentState.ABORTED
    assert "device-silent" in lab.services.deployments.get("v2").reason


def test_a_tick_with_nothing_to_do_takes_no_lock(lab: Lab) -> None:
    second(lab)

    with lab.store.begin():
        wait(lab, 1)


def test_a_report_without_news_takes_no_lock(lab: Lab) -> None:
    device = lab.services.devices.get("d-2")

    with lab.store.begin():
        lab.services.deployments.device_reported(device)


def test_a_report_about_an_older_version_changes_nothing(lab: Lab) -> None:
    second(lab)
    lab.report("d-1", failed="probe-failed", version=1)

    assert lab.states("v2")["d-1"] == "dispatched"


def test_a_newer_deployment_takes_over_and_the_older_does_not_fail_by_it(lab: Lab) -> None:
    second(lab)
    lab.deploy("v3", "digits-image:1")
    for name in FLEET:
        lab.report(name)
    wait(lab, 3600)

    assert state(lab, "v2") is DeploymentState.DONE
    assert state(lab, "v3") is DeploymentState.DONE
    assert {lab.opened(name).deployment for name in FLEET} == {"v3"}


def test_a_weaker_deployment_reaches_nobody_and_is_done(lab: Lab) -> None:
    before = [lab.version(name) for name in FLEET]
    second(lab, priority=-1)

    assert [lab.version(name) for name in FLEET] == before
    assert lab.announced == []
    assert state(lab, "v2") is DeploymentState.DONE


def test_a_weaker_deployment_is_there_when_the_stronger_is_taken_back(lab: Lab) -> None:
    second(lab, priority=-1)
    lab.services.deployments.abort("v1", "an operator took it back")

    assert {lab.opened(name).deployment for name in FLEET} == {"v2"}
    assert set(lab.states("v2").values()) == {"dispatched"}


def test_taking_back_the_only_deployment_leaves_nothing_running(lab: Lab) -> None:
    lab.services.deployments.abort("v1", "an operator took it back")

    opened = lab.opened("d-1")
    modules = json.loads(opened.manifest)["modulesContent"]["$edgeAgent"]["properties.desired"]
    assert (opened.deployment, modules["modules"]) == ("", {})
    assert {lab.version(name) for name in FLEET} == {2}


def test_nothing_is_signed_anew_like_anything_else(lab: Lab) -> None:
    lab.services.deployments.abort("v1", "an operator took it back")
    before = lab.opened("d-1")
    lab.clock.advance(LIFE.total_seconds() * 0.8)  # type: ignore[attr-defined]  # the clock of tests
    state = lab.services.deployments.desired(DeviceId("d-1"))

    assert state is not None
    assert state.version == before.version
    assert lab.opened("d-1").expires > before.expires


def test_aborting_twice_keeps_the_first_reason(lab: Lab) -> None:
    lab.services.deployments.abort("v1", "first")

    assert lab.services.deployments.abort("v1", "second").reason == "first"
    assert code_of(lambda: lab.services.deployments.abort("none", "x")) == "deployment-unknown"


def test_a_newcomer_gets_what_is_done_and_cannot_abort_it(lab: Lab) -> None:
    lab.enroll("d-6")
    assert lab.opened("d-6").deployment == "v1"
    lab.report("d-6", failed="probe-failed")

    assert lab.states("v1")["d-6"] == "failed"
    assert state(lab, "v1") is DeploymentState.DONE


def test_a_newcomer_joins_the_next_wave_of_a_rollout(lab: Lab) -> None:
    second(lab)
    lab.enroll("d-0")

    assert lab.states("v2")["d-0"] == "waiting"
    lab.report("d-1")
    assert lab.states("v2")["d-0"] == "dispatched"


def test_tags_decide_who_belongs(lab: Lab) -> None:
    second(lab, condition="tags.site = 'plant-8'")
    assert lab.states("v2") == {}

    lab.services.devices.set_tags("d-3", {"site": "plant-8"})
    assert lab.opened("d-3").deployment == "v2"
    lab.report("d-3")

    lab.services.devices.set_tags("d-3", {"site": "plant-7"})
    assert lab.states("v2") == {}
    assert (lab.opened("d-3").deployment, lab.version("d-3")) == ("v1", 3)


def test_reports_decide_who_belongs(lab: Lab) -> None:
    second(lab, condition="properties.reported.gpu = true")
    assert lab.states("v2") == {}

    lab.tell("d-3", {"gpu": True})
    assert lab.states("v2") == {"d-3": "dispatched"}
    lab.tell("d-3", {"gpu": False})
    assert lab.states("v2") == {}
    assert lab.opened("d-3").deployment == "v1"


def test_a_retired_device_leaves_its_rollouts(lab: Lab) -> None:
    second(lab)
    lab.services.devices.retire("d-1")

    assert "d-1" not in lab.states("v2")
    assert state(lab, "v2") is DeploymentState.ROLLING
    wait(lab, 1)
    assert lab.states("v2")["d-2"] == "dispatched"


def test_a_device_that_comes_back_to_what_it_runs_need_not_prove_it_again(tmp_path: Path) -> None:
    lab = make_lab(tmp_path)
    lab.register()
    lab.enroll("d-1", site="a")
    lab.deploy("only", lab.image(), "tags.site = 'a'")
    lab.report("d-1")

    lab.services.devices.set_tags("d-1", {"site": "b"})
    assert (lab.states("only"), lab.opened("d-1").deployment) == ({}, "only")
    lab.services.devices.set_tags("d-1", {"site": "a"})
    assert (lab.states("only"), lab.version("d-1")) == ({"d-1": "succeeded"}, 1)


def test_the_same_deployment_again_changes_nothing(lab: Lab) -> None:
    before = lab.services.deployments.get("v1")
    lab.deploy("v1", "digits-image:1")

    assert lab.services.deployments.get("v1") == before
    assert lab.announced == []


@pytest.mark.parametrize("other", [{"priority": 1}, {"labels": {"a": "b"}}, {"condition": "NOT *"}])
def test_other_content_under_the_same_id_is_refused(lab: Lab, other: dict[str, Any]) -> None:
    condition = (other.pop("condition", None) and "tags.site = 'x'") or "*"

    refused = code_of(lambda: lab.deploy("v1", "digits-image:1", condition, **other))

    assert refused == "deployment-exists"


@pytest.mark.parametrize(
    ("name", "image", "condition", "code"),
    [
        ("Not An Id", "digits-image:1", "*", "id-invalid"),
        ("v2", "digits-image:1", "tags.", "condition-invalid"),
        ("v2", "digits-image:99", "*", "image-unknown"),
        ("v2", "digits-image:" + "9" * 40, "*", "image-unknown"),
        ("v2", "nothing", "*", "image-unknown"),
        ("v2", "elsewhere.example/x:1", "*", "image-unknown"),
        ("v2", "NOT AN IMAGE", "*", "id-invalid"),
    ],
)
def test_what_cannot_be_deployed_leaves_nothing(
    lab: Lab, name: str, image: str, condition: str, code: str
) -> None:
    assert code_of(lambda: lab.deploy(name, image, condition)) == code
    assert [d.id for d in lab.services.deployments.all()] == ["v1"]


def test_a_bad_manifest_leaves_nothing(lab: Lab) -> None:
    draft = Draft("v2", b'{"modulesContent":{}}', "*")

    assert code_of(lambda: lab.services.deployments.create(draft)) == "manifest-invalid"
    assert len(lab.services.deployments.all()) == 1


def test_an_image_that_failed_cannot_be_deployed(lab: Lab) -> None:
    lab.builder.refusals["build"] = RuntimeError("broken")
    with capture_logs():
        image = lab.image()

    assert code_of(lambda: lab.deploy("v2", image)) == "state-conflict"


def test_an_old_document_is_signed_anew_when_it_is_asked_for(lab: Lab) -> None:
    old = lab.opened("d-1")
    lab.clock.advance((LIFE / 2).total_seconds())  # type: ignore[attr-defined]  # the clock of tests
    new = lab.opened("d-1")

    assert new.version == old.version
    assert new.expires - old.expires == timedelta(days=15).total_seconds()
    assert lab.states("v1")["d-1"] == "succeeded"


def test_golden_samples_of_the_model_reach_the_device(lab: Lab) -> None:
    golden = {"samples": [{"input": [1], "expected": [7]}]}
    lab.register("seven", golden=golden)
    lab.deploy("seven", lab.image("seven-image", "seven"))

    manifest = json.loads(lab.opened("d-1").manifest)
    modules = manifest["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]
    assert modules["model"]["x-goldenSamples"] == golden
    assert "@sha256:" in modules["model"]["settings"]["image"]


def test_status_counts_every_state(lab: Lab) -> None:
    second(lab)

    assert lab.services.deployments.status("v2") == {
        "waiting": 4,
        "dispatched": 1,
        "succeeded": 0,
        "failed": 0,
    }


# ---- the means to pull ---------------------------------------------------------------------------


def image_of(lab: Lab, device: str) -> str:
    manifest = json.loads(lab.opened(device).manifest)
    modules = manifest["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]
    return str(modules["model"]["settings"]["image"])


def test_a_device_may_pull_what_it_shall_run_and_nothing_else(lab: Lab) -> None:
    image = image_of(lab, "d-1")
    second(lab)

    credentials = lab.services.credentials
    assert credentials.for_image(DeviceId("d-2"), image).token == "d-2 digits-image"
    for device, wanted, code in [
        ("d-1", image, "forbidden"),
        ("d-2", image_of(lab, "d-1"), "forbidden"),
        ("d-2", "digits-image:1", "forbidden"),
        ("nobody", image, "forbidden"),
        ("d-2", "NO IMAGE", "id-invalid"),
    ]:
        refused = code_of(lambda d=device, w=wanted: credentials.for_image(DeviceId(d), w))  # type: ignore[misc]  # bound now
        assert refused == code


def test_another_registry_is_opened_with_what_the_manifest_says(lab: Lab) -> None:
    image = "registry.example/x@sha256:" + "a" * 64
    manifest = module_manifest(image)
    runtime = {
        "type": "docker",
        "settings": {
            "registryCredentials": {
                "r": {"username": "u", "password": "p", "address": "registry.example"}
            }
        },
    }
    manifest["modulesContent"]["$edgeAgent"]["properties.desired"]["runtime"] = runtime
    lab.services.deployments.create(Draft("v2", json.dumps(manifest).encode(), "*"))
    lab.deploy("v3", image.replace("example", "other"), priority=1)

    assert (
        lab.services.credentials.for_image(DeviceId("d-1"), image.replace("example", "other")).kind
        == "anonymous"
    )
    lab.services.deployments.abort("v3", "x")
    found = lab.services.credentials.for_image(DeviceId("d-1"), image)
    assert (found.kind, found.username, found.password) == ("basic", "u", "p")
