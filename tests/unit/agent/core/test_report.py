"""What the agent tells the hub about itself."""

from __future__ import annotations

from typing import Any

import pytest
from agent_world import DEVICE, desired, envelope, image, module, trust

from agent.core.desired import Accepted, read
from agent.core.plan import Instance, InstanceState, Observed
from agent.core.report import Facts, Refusal, build
from agent.core.update import Progress, State
from protocol.errors import Code, InvalidError


def accepted(version: int, **changes: Any) -> Accepted:
    modules = {"digits": module(version, **changes)}
    return read(envelope(desired(version, modules)), trust(DEVICE))[1]


def facts(**changes: Any) -> Facts:
    given: dict[str, Any] = {
        "agent_version": "0.1.0",
        "runtime": "process",
        "bytes_pulled": 12,
        "good": None,
        "accepted": None,
        "progress": None,
        "hindrance": None,
        "refusal": None,
        "observed": Observed(frozenset(), ()),
        "restarts": lambda _id: 0,
    }
    return Facts(**given | changes)


def seen(of: Accepted, state: InstanceState, code: int | None = None) -> Observed:
    (one,) = of.specs.values()
    instance = Instance(one.instance_id, one.name, one.fingerprint, state, "", exit_code=code)
    return Observed(frozenset(), (instance,))


def test_a_new_device_has_nothing_to_tell() -> None:
    assert build(facts()) == {
        "schemaVersion": "1.1",
        "version": {"version": "0.1.0"},
        "lastDesiredVersion": 0,
        "lastDesiredStatus": {"code": 406, "description": ""},
        "runtime": {"type": "docker", "x-kind": "process"},
        "modules": {},
        "x-bytesPulled": 12,
    }


def test_an_update_that_succeeded() -> None:
    one = accepted(3)

    report = build(
        facts(
            good=one,
            accepted=one,
            progress=Progress(1, 3, State.DONE),
            observed=seen(one, InstanceState.RUNNING),
            restarts=lambda _id: 2,
        )
    )

    assert (report["lastDesiredVersion"], report["lastDesiredStatus"]["code"]) == (3, 200)
    assert report["x-update"] == {
        "version": 3,
        "deployment": "deployment-3",
        "state": "succeeded",
        "step": "done",
    }
    assert report["modules"]["digits"] == {
        "status": "running",
        "runtimeStatus": "running",
        "restartPolicy": "always",
        "restartCount": 2,
        "exitCode": 0,
        "settings": {"image": image(3), "imageHash": image(3).partition("@")[2]},
    }


def test_an_update_that_went_back_names_its_reason() -> None:
    failed = Progress(1, 4, State.FAILED, code="golden-mismatch", message="sample 1 is wrong")

    report = build(facts(good=accepted(3), accepted=accepted(4), progress=failed))

    assert report["lastDesiredStatus"] == {"code": 500, "description": "sample 1 is wrong"}
    assert report["lastDesiredVersion"] == 4
    assert report["x-update"] == {
        "version": 4,
        "deployment": "deployment-4",
        "state": "rolled-back",
        "step": "failed",
        "code": "golden-mismatch",
        "message": "sample 1 is wrong",
    }


def test_a_first_update_that_failed_has_nothing_to_go_back_to() -> None:
    failed = Progress(1, 4, State.FAILED, code="probe-failed", message="no answer")

    assert build(facts(accepted=accepted(4), progress=failed))["x-update"]["state"] == "failed"


def test_an_update_under_way_says_what_hinders_it() -> None:
    report = build(
        facts(
            good=accepted(3),
            accepted=accepted(4),
            progress=Progress(1, 4, State.FETCH),
            hindrance=Refusal("image-unavailable", "not there"),
        )
    )

    assert report["lastDesiredVersion"] == 3
    assert report["lastDesiredStatus"]["code"] == 200
    assert report["x-update"] == {
        "version": 4,
        "deployment": "deployment-4",
        "state": "in-progress",
        "step": "fetch",
        "code": "image-unavailable",
        "message": "not there",
    }


def test_why_it_goes_back_is_told_before_what_hinders_the_way() -> None:
    back = Progress(1, 4, State.ROLLBACK, code="probe-failed", message="no answer")

    update = build(
        facts(accepted=accepted(4), progress=back, hindrance=Refusal("busy", "engine")),
    )["x-update"]

    assert (update["code"], update["state"]) == ("probe-failed", "in-progress")


def test_a_refused_document_is_told() -> None:
    refusal = Refusal.of(InvalidError("x" * 9999, code=Code.MANIFEST_INVALID))

    report = build(facts(good=accepted(3), refusal=refusal))

    assert report["lastDesiredStatus"] == {"code": 400, "description": "x" * 500}
    assert report["x-refused"] == {"code": "manifest-invalid", "message": "x" * 500}


@pytest.mark.parametrize(
    ("changes", "state", "code", "says"),
    [
        ({}, InstanceState.EXITED, 1, "backoff"),
        ({"restartPolicy": "never"}, InstanceState.EXITED, 1, "failed"),
        ({"restartPolicy": "never"}, InstanceState.EXITED, None, "failed"),
        ({"restartPolicy": "never"}, InstanceState.EXITED, 0, "stopped"),
        ({"restartPolicy": "on-failure"}, InstanceState.EXITED, 0, "stopped"),
        ({"restartPolicy": "on-failure"}, InstanceState.EXITED, 1, "backoff"),
        ({"status": "stopped"}, InstanceState.EXITED, 1, "stopped"),
        ({"status": "stopped"}, InstanceState.RUNNING, None, "running"),
    ],
)
def test_the_state_of_a_module(
    changes: dict[str, Any], state: InstanceState, code: int | None, says: str
) -> None:
    one = accepted(3, **changes)

    told = build(facts(good=one, observed=seen(one, state, code)))["modules"]["digits"]

    assert (told["runtimeStatus"], told["exitCode"]) == (says, code or 0)


def test_a_module_nobody_sees_is_unknown() -> None:
    assert build(facts(good=accepted(3)))["modules"]["digits"]["runtimeStatus"] == "unknown"
