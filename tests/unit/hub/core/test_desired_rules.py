"""Which deployment wins, what is sent, and how a report is read."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hub_lab import module_manifest
from hypothesis import given
from strategies import json_objects

from hub.core.deployment import (
    Deployment,
    DeploymentState,
    DesiredState,
    Member,
    MemberState,
)
from hub.core.desired import (
    LIFE,
    Rendering,
    facts,
    images_of,
    is_stale,
    reissue,
    render,
    winner,
    with_images,
)
from hub.core.device import Device, DeviceState
from hub.core.reported import Outcome, bytes_pulled, outcome
from protocol import codec
from protocol.ids import DeviceId, ImageRef, digest_of
from protocol.messages import Desired

AT = datetime(2030, 1, 1, tzinfo=UTC)
DEVICE = DeviceId("press-7")
PIN = digest_of(b"image")


def deployment(name: str, priority: int = 0, age: int = 0, **more: Any) -> Deployment:
    return Deployment(name, "{}", "*", priority, AT - timedelta(days=age), **more)


def place(name: str, state: MemberState = MemberState.SUCCEEDED) -> Member:
    return Member(name, DEVICE, state, AT)


def chosen(*places: Member, among: list[Deployment]) -> str | None:
    found = winner(places, {d.id: d for d in among})
    return found.id if found else None


def sealed(_kind: str, payload: bytes) -> bytes:
    return payload


RENDERING = Rendering(DEVICE, 1, AT, sealed)


# ---- who wins ------------------------------------------------------------------------------------


def test_nobody_wins_where_nothing_is_deployed() -> None:
    assert chosen(among=[]) is None


def test_the_highest_priority_wins_then_the_newest_then_the_id() -> None:
    old, new, twin = deployment("old", 0, 2), deployment("new", 0, 1), deployment("newer", 0, 1)
    strong = deployment("strong", 5, 3)

    assert chosen(place("old"), place("new"), among=[old, new]) == "new"
    assert chosen(place("new"), place("newer"), among=[new, twin]) == "newer"
    assert chosen(place("new"), place("strong"), among=[new, strong]) == "strong"


@pytest.mark.parametrize(
    ("state", "wins"),
    [
        (MemberState.WAITING, False),
        (MemberState.DISPATCHED, True),
        (MemberState.SUCCEEDED, True),
        (MemberState.FAILED, True),
    ],
)
def test_only_deployments_that_reached_the_device_count(state: MemberState, *, wins: bool) -> None:
    assert chosen(place("a", state), among=[deployment("a")]) == ("a" if wins else None)


def test_aborted_and_forgotten_deployments_do_not_count() -> None:
    aborted = deployment("a", state=DeploymentState.ABORTED)

    assert chosen(place("a"), place("gone"), among=[aborted]) is None


# ---- what is sent --------------------------------------------------------------------------------


def test_the_first_version_is_1_and_says_everything() -> None:
    state = render(deployment("a"), None, RENDERING)

    assert state is not None
    document = codec.decode(state.envelope, Desired)
    assert (state.version, state.deployment_id, state.issued_at) == (1, "a", AT)
    assert document == Desired(
        DEVICE, 1, 1, int(AT.timestamp()), int((AT + LIFE).timestamp()), "a", "{}"
    )


def next_of(previous: DesiredState | None, wanted: Deployment, **more: Any) -> DesiredState | None:
    return render(wanted, previous, replace(RENDERING, **more))


def test_the_same_content_is_not_sent_again() -> None:
    first = next_of(None, deployment("a"))

    assert next_of(first, deployment("a", 9)) is None


def test_other_content_and_other_deployments_raise_the_version() -> None:
    first = next_of(None, deployment("a"))
    second = next_of(first, deployment("b"))
    third = next_of(second, replace(deployment("b"), manifest='{"x":1}'))

    assert [s.version for s in (first, second, third) if s] == [1, 2, 3]


def test_a_new_epoch_counts_from_1_and_sends_the_same_again() -> None:
    first = next_of(next_of(None, deployment("b")), deployment("a"))
    again = next_of(first, deployment("a"), epoch=2)

    assert again is not None
    assert (again.epoch, again.version) == (2, 1)


def test_an_old_document_is_signed_anew_under_its_version() -> None:
    first = next_of(None, deployment("a"))
    assert first is not None
    later = AT + LIFE / 2

    assert not is_stale(first, later - timedelta(seconds=1))
    assert is_stale(first, later)
    fresh = reissue(deployment("a"), first, replace(RENDERING, now=later))
    assert (fresh.version, fresh.content_digest) == (first.version, first.content_digest)
    assert codec.decode(fresh.envelope, Desired).expires == int((later + LIFE).timestamp())
    assert not is_stale(fresh, later)


def test_images_are_resolved_and_the_manifest_given_is_left_alone() -> None:
    manifest = module_manifest("digits:1")
    before = msgspec.json.encode(manifest)

    pinned = with_images(
        manifest, lambda written: f"hub/{written[:6]}@{PIN}", lambda _written: {"samples": []}
    )

    assert images_of(pinned) == [ImageRef("", "hub/digits", None, PIN)]
    module = pinned["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]["model"]
    assert module["x-goldenSamples"] == {"samples": []}
    assert msgspec.json.encode(manifest) == before


def test_golden_samples_of_the_manifest_come_first() -> None:
    manifest = module_manifest("digits:1", **{"x-goldenSamples": {"samples": [1]}})

    pinned = with_images(manifest, lambda written: written, lambda _written: {"samples": []})

    modules = pinned["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]
    assert modules["model"]["x-goldenSamples"] == {"samples": [1]}


def test_a_model_without_samples_adds_none() -> None:
    pinned = with_images(module_manifest("a"), lambda written: written, lambda _written: None)

    modules = pinned["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]
    assert "x-goldenSamples" not in modules["model"]


def test_a_manifest_without_modules_has_no_images() -> None:
    manifest: dict[str, Any] = {"modulesContent": {"$edgeAgent": {"properties.desired": {}}}}

    assert images_of(with_images(manifest, str, str)) == []


def test_conditions_may_ask_for_id_profile_tags_and_reports() -> None:
    device = Device(
        DEVICE, "p", DeviceState.ENROLLED, AT, tags={"a": 1}, reported={"b": 2}, connected=True
    )

    assert facts(device) == {
        "deviceId": "press-7",
        "profile": "p",
        "tags": {"a": 1},
        "properties": {"reported": {"b": 2}},
    }


# ---- what a report says --------------------------------------------------------------------------


def report(update: Any = None, version: Any = 3, status: Any = None) -> dict[str, Any]:
    told = {"lastDesiredVersion": version, "lastDesiredStatus": status or {"code": 200}}
    return told if update is None else {**told, "x-update": update}


def test_success_is_the_status_of_the_version_asked_for() -> None:
    assert outcome(report(), 3) == Outcome(MemberState.SUCCEEDED)
    assert outcome(report({"version": 3, "state": "succeeded"}), 3) == Outcome(
        MemberState.SUCCEEDED
    )


@pytest.mark.parametrize("state", ["failed", "rolled-back"])
def test_failure_tells_why(state: str) -> None:
    update = {"version": 3, "state": state, "code": "probe-failed", "message": "no answer"}

    assert outcome(report(update), 3) == Outcome(MemberState.FAILED, "probe-failed", "no answer")


def test_failure_without_a_code_is_ours() -> None:
    assert outcome(report({"version": 3, "state": "failed"}), 3) == Outcome(
        MemberState.FAILED, "internal"
    )


@pytest.mark.parametrize(
    "reported",
    [
        {},
        report(version=2),
        report(version="3"),
        report(status={"code": 406}),
        report(status="200"),
        report({"version": 3, "state": "in-progress"}),
        report({"version": 3}),
        report({"version": 2, "state": "failed"}, version=2),
        {"x-update": "failed"},
        {"x-update": ["failed"], "lastDesiredVersion": 3},
    ],
)
def test_anything_else_is_no_outcome_yet(reported: dict[str, Any]) -> None:
    assert outcome(reported, 3) is None


@given(json_objects)
def test_no_report_breaks_the_reader(reported: dict[str, Any]) -> None:
    for key in ("x-update", "lastDesiredStatus", "lastDesiredVersion"):
        outcome({**reported, key: reported}, 3)
    assert bytes_pulled({"x-bytesPulled": reported}) == 0


def test_pulled_bytes_are_read_as_told() -> None:
    assert bytes_pulled({"x-bytesPulled": 7}) == 7
