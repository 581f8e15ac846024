"""What every store keeps, finds and refuses."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hub.core.deployment import (
    Deployment,
    DeploymentState,
    DesiredState,
    Member,
    MemberState,
    RolloutPolicy,
    Wave,
)
from hub.core.device import Claim, Device, DeviceState, Token
from hub.core.image import Image, ImageState, LayerInfo
from hub.core.model import Model
from hub.core.oci import ManifestRecord
from hub.core.ports import Store, UnitOfWork
from hub.core.telemetry import Measurement, Quarantined, TelemetryFilter
from protocol.errors import Code, ConflictError
from protocol.ids import DeviceId, digest_of

pytest_plugins = ["store_fixtures"]

AT = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
CAMERA = DeviceId("camera-1")
PRESS = DeviceId("press-2")
DOCUMENT = {"a": {"b": [1, 1.0, True, None, "é\0"]}, "deep": {"x": -(2**63)}}


def device(name: str = CAMERA) -> Device:
    return Device(
        id=DeviceId(name),
        profile="generic",
        state=DeviceState.ENROLLED,
        enrolled_at=AT,
        agent_version="1.2.3",
        tags=DOCUMENT,
        reported=DOCUMENT,
        reported_revision=7,
        connected=True,
        last_seen=AT,
    )


def model(name: str = "digits", version: int = 1) -> Model:
    return Model(
        name=name,
        version=version,
        digest=digest_of(b"model"),
        size=5,
        filename="digits.onnx",
        created_at=AT,
        framework="onnx",
        description="reads digits",
        tags={"team": "vision"},
        golden={"samples": [DOCUMENT]},
    )


def image(name: str = "digits", version: int = 1) -> Image:
    return Image(
        name=name,
        version=version,
        state=ImageState.READY,
        models=("digits:1", "extra:2"),
        created_at=AT,
        architecture="arm64",
        digest=digest_of(b"image"),
        reference="hub:5000/digits@sha256:0",
        layers=(LayerInfo("base", digest_of(b"base"), 3), LayerInfo("model", digest_of(b"m"), 1)),
        progress="done",
        error_code="build-failed",
        error="no wheel",
        error_hint="pin it",
    )


def deployment(name: str = "all", *, at: datetime = AT) -> Deployment:
    return Deployment(
        id=name,
        manifest='{"content":{}}',
        condition="tags.site = 'north'",
        priority=-3,
        created_at=at,
        policy=RolloutPolicy((Wave(count=2), Wave(share=0.5)), 60.0, 0.9, 120.0),
        labels={"kind": "test"},
        models=("digits:1",),
        state=DeploymentState.ABORTED,
        reason="too many failed",
    )


def member(deployment_id: str = "all", device_id: str = CAMERA) -> Member:
    return Member(
        deployment_id=deployment_id,
        device_id=DeviceId(device_id),
        state=MemberState.FAILED,
        since=AT,
        wave=0,
        version=4,
        code="probe-failed",
        message="module 'm' did not answer",
    )


def desired(device_id: str = CAMERA) -> DesiredState:
    return DesiredState(
        device_id=DeviceId(device_id),
        epoch=2,
        version=9,
        deployment_id="",
        content_digest=digest_of(b"content"),
        envelope=b"\x00\xffsigned",
        issued_at=AT,
    )


def measurement(seq: int, device_id: str = CAMERA, **more: Any) -> Measurement:
    row = Measurement(
        device=DeviceId(device_id),
        epoch="0f",
        seq=seq,
        module="classifier",
        output="results",
        at=AT,
        received_at=AT + timedelta(microseconds=1),
        body=b'{"label":[3]}\x00\xff',
        properties={"input": "a.png"},
    )
    return replace(row, **more)


def manifest(content: bytes = b"{}", **more: Any) -> ManifestRecord:
    record = ManifestRecord(
        digest_of(content), "application/json", content, None, "thing", '{"a":"b"}'
    )
    return replace(record, **more)


def write(store: Store, change: Callable[[UnitOfWork], object]) -> None:
    with store.begin() as work:
        change(work)
        work.commit()


def seqs(rows: Any) -> list[int]:
    return [row.seq for row in rows]


# ---- transactions --------------------------------------------------------------------------------


def test_what_was_committed_is_there_for_the_next_unit(store: Store) -> None:
    write(store, lambda work: work.put_setting("epoch", "1"))

    with store.begin(write=False) as work:
        assert work.get_setting("epoch") == "1"


def test_what_was_not_committed_never_happened(store: Store) -> None:
    with store.begin() as work:
        work.devices.put(device())
        work.telemetry.add([measurement(1)])

    with store.begin() as work:
        assert work.devices.get(CAMERA) is None
        assert work.telemetry.count() == 0


def test_an_exception_rolls_back_and_passes(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.begin() as work:  # noqa: PT012 - leaving is what counts
        work.put_setting("key", "value")
        1 / 0  # noqa: B018 - raises

    with store.begin(write=False) as work:
        assert work.get_setting("key") is None


def test_a_unit_sees_its_own_changes(store: Store) -> None:
    with store.begin() as work:
        work.put_setting("key", "value")

        assert work.get_setting("key") == "value"


def test_what_follows_a_commit_is_the_next_transaction(store: Store) -> None:
    with store.begin() as work:
        work.put_setting("first", "kept")
        work.commit()
        work.put_setting("second", "lost")

    with store.begin() as work:
        assert (work.get_setting("first"), work.get_setting("second")) == ("kept", None)


def test_a_reading_unit_sees_one_state_while_others_write(store: Store) -> None:
    write(store, lambda work: work.put_setting("key", "old"))

    with store.begin(write=False) as reader:
        before = reader.get_setting("key")
        write(store, lambda work: work.put_setting("key", "new"))

        assert (before, reader.get_setting("key")) == ("old", "old")


def test_a_reading_unit_cannot_write(store: Store) -> None:
    with (
        pytest.raises(Exception, match=r"read-?\s?only|does not support item assignment"),
        store.begin(write=False) as work,
    ):
        work.put_setting("key", "value")

    with store.begin() as work:
        assert work.get_setting("key") is None


def test_writers_take_turns(store: Store) -> None:
    def count_up() -> None:
        for _ in range(20):
            with store.begin() as work:
                work.put_setting("count", str(int(work.get_setting("count") or 0) + 1))
                work.commit()

    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with store.begin(write=False) as work:
        assert work.get_setting("count") == "80"


def test_a_setting_can_be_replaced(store: Store) -> None:
    write(store, lambda work: work.put_setting("key", "old"))
    write(store, lambda work: work.put_setting("key", "new"))

    with store.begin(write=False) as work:
        assert work.get_setting("key") == "new"


# ---- devices, claims, tokens ---------------------------------------------------------------------


def test_a_device_comes_back_as_it_was_put(store: Store) -> None:
    write(store, lambda work: work.devices.put(device()))

    with store.begin(write=False) as work:
        found = work.devices.get(CAMERA)
    assert found == device()
    assert found is not None
    assert repr(found.tags) == repr(DOCUMENT)  # 1, 1.0 and true are three values


def test_a_device_that_was_never_seen_comes_back_so(store: Store) -> None:
    silent = replace(device(), last_seen=None, connected=False)
    write(store, lambda work: work.devices.put(silent))

    with store.begin(write=False) as work:
        assert work.devices.get(CAMERA) == silent


def test_putting_a_device_again_replaces_it(store: Store) -> None:
    changed = replace(device(), tags={}, state=DeviceState.RETIRED, reported_revision=8)
    write(store, lambda work: work.devices.put(device()))
    write(store, lambda work: work.devices.put(changed))

    with store.begin(write=False) as work:
        assert list(work.devices.list()) == [changed]


def test_changing_a_value_afterwards_does_not_change_what_is_kept(store: Store) -> None:
    mine = replace(device(), tags={"site": "north"})
    with store.begin() as work:
        work.devices.put(mine)
        mine.tags["site"] = "south"
        work.commit()

    with store.begin(write=False) as work:
        found = work.devices.get(CAMERA)
        assert found is not None
        found.tags["site"] = "west"
        again = work.devices.get(CAMERA)
        assert again is not None
        assert again.tags == {"site": "north"}


def test_devices_are_listed_in_pages_in_order_of_code_points(store: Store) -> None:
    names = ["a-b", "a0", "aa", "ab", "b", "z9"]
    with store.begin() as work:
        for each in reversed(names):
            work.devices.put(device(each))

        first = [each.id for each in work.devices.list(limit=3)]
        rest = [each.id for each in work.devices.list(after="aa")]

    assert (first, rest) == (names[:3], names[3:])


def test_presence_is_recorded_and_nothing_else(store: Store) -> None:
    later = AT + timedelta(seconds=1)
    with store.begin() as work:
        work.devices.put(device())
        work.devices.set_connected(CAMERA, connected=False, at=later)

        assert work.devices.get(CAMERA) == replace(device(), connected=False, last_seen=later)


def test_presence_of_an_unknown_device_is_ignored(store: Store) -> None:
    with store.begin() as work:
        work.devices.set_connected(CAMERA, connected=True, at=AT)

        assert list(work.devices.list()) == []


def test_all_devices_are_disconnected_at_once(store: Store) -> None:
    with store.begin() as work:
        work.devices.put(device(CAMERA))
        work.devices.put(device(PRESS))
        work.devices.disconnect_all()

        assert [each.connected for each in work.devices.list()] == [False, False]


def test_a_claim_comes_back_used(store: Store) -> None:
    claim = Claim("5ec7e7", CAMERA, {"site": "north"}, AT + timedelta(hours=1))
    with store.begin() as work:
        work.claims.put(claim)
        assert work.claims.get("5ec7e7") == claim
        work.claims.put(claim.use(AT))

        assert work.claims.get("5ec7e7") == replace(claim, used_at=AT)
        assert work.claims.get("other") is None


def test_a_token_comes_back_as_it_was_put(store: Store) -> None:
    token = Token("5ec7e7", "ann", "admin", AT, AT + timedelta(days=1))
    with store.begin() as work:
        work.tokens.put(token)

        assert work.tokens.get("5ec7e7") == token
        assert work.tokens.get("other") is None


def test_a_forgotten_name_takes_its_tokens_along(store: Store) -> None:
    with store.begin() as work:
        for secret, name in (("a1", "ann"), ("a2", "ann"), ("b1", "ben")):
            work.tokens.put(Token(secret, name, "admin", AT, AT + timedelta(days=1)))

        work.tokens.forget("ann")

        left = [secret for secret in ("a1", "a2", "b1") if work.tokens.get(secret)]
        assert left == ["b1"]


# ---- models and images ---------------------------------------------------------------------------


def test_a_model_comes_back_as_it_was_added(store: Store) -> None:
    bare = Model("bare", 1, digest_of(b""), 0, "f", AT)
    with store.begin() as work:
        work.models.add(model())
        work.models.add(bare)

        assert work.models.get("digits", 1) == model()
        assert work.models.get("bare", None) == bare


def test_without_a_version_the_newest_model_is_meant(store: Store) -> None:
    with store.begin() as work:
        for version in (1, 2, 10):
            work.models.add(model(version=version))

        assert work.models.get("digits", None) == model(version=10)
        assert work.models.get("digits", 3) is None
        assert work.models.get("other", None) is None


def test_versions_count_from_one_per_name(store: Store) -> None:
    with store.begin() as work:
        work.models.add(model(version=work.models.next_version("digits")))
        work.images.put(image(version=work.images.next_version("digits")))

        assert work.models.next_version("digits") == 2
        assert work.images.next_version("digits") == 2
        assert work.models.next_version("other") == 1


def test_a_version_is_added_once(store: Store) -> None:
    write(store, lambda work: work.models.add(model()))

    with pytest.raises(ConflictError) as caught, store.begin() as work:
        work.models.add(replace(model(), size=6))

    assert caught.value.code is Code.STATE_CONFLICT


def test_models_are_listed_by_name_and_version(store: Store) -> None:
    with store.begin() as work:
        for name, version in (("b", 1), ("a", 10), ("a", 9)):
            work.models.add(model(name, version))

        assert [each.ref for each in work.models.list()] == ["a:9", "a:10", "b:1"]
        assert [each.ref for each in work.models.list("b")] == ["b:1"]


def test_an_image_comes_back_and_changes_while_it_is_built(store: Store) -> None:
    building = Image("digits", 1, ImageState.BUILDING, ("digits:1",), AT)
    with store.begin() as work:
        work.images.put(building)
        assert work.images.get("digits", 1) == building
        work.images.put(image())

        assert work.images.get("digits", None) == image()
        assert work.images.get("digits", 2) is None


def test_images_are_listed_by_name_and_version(store: Store) -> None:
    with store.begin() as work:
        for name, version in (("b", 1), ("a", 10), ("a", 9)):
            work.images.put(image(name, version))

        assert [each.ref for each in work.images.list()] == ["a:9", "a:10", "b:1"]
        assert [each.ref for each in work.images.list("a")] == ["a:9", "a:10"]


# ---- deployments ---------------------------------------------------------------------------------


def test_a_deployment_comes_back_as_it_was_put(store: Store) -> None:
    with store.begin() as work:
        work.deployments.put(replace(deployment(), state=DeploymentState.ROLLING, reason=""))
        work.deployments.put(deployment())

        assert work.deployments.get("all") == deployment()
        assert work.deployments.get("other") is None


def test_deployments_are_listed_oldest_first(store: Store) -> None:
    with store.begin() as work:
        work.deployments.put(deployment("a", at=AT + timedelta(microseconds=1)))
        work.deployments.put(deployment("c"))
        work.deployments.put(deployment("b"))

        assert [each.id for each in work.deployments.list()] == ["b", "c", "a"]


def with_members(work: UnitOfWork) -> None:
    for name in (PRESS, CAMERA):
        work.devices.put(device(name))
    for owner in ("b", "a"):
        work.deployments.put(deployment(owner))
    for each in (member("b", PRESS), member("b", CAMERA), member("a", CAMERA)):
        work.deployments.put_member(each)


def test_members_are_found_by_deployment(store: Store) -> None:
    with store.begin() as work:
        with_members(work)

        assert work.deployments.members("b") == [member("b", CAMERA), member("b", PRESS)]
        assert list(work.deployments.members("other")) == []


def test_memberships_are_found_by_device(store: Store) -> None:
    with store.begin() as work:
        with_members(work)

        assert work.deployments.memberships(CAMERA) == [member("a"), member("b")]


def test_a_member_is_replaced(store: Store) -> None:
    waiting = Member("a", CAMERA, MemberState.WAITING, AT)
    with store.begin() as work:
        with_members(work)
        work.deployments.put_member(waiting)

        assert work.deployments.members("a") == [waiting]


def test_a_member_is_removed_once_or_not_at_all(store: Store) -> None:
    with store.begin() as work:
        with_members(work)
        work.deployments.remove_member("b", CAMERA)
        work.deployments.remove_member("b", CAMERA)

        assert work.deployments.members("b") == [member("b", PRESS)]
        assert work.deployments.memberships(CAMERA) == [member("a")]


@pytest.mark.parametrize("stranger", [member("other", CAMERA), member("all", PRESS)])
def test_a_member_belongs_to_a_deployment_and_a_device(store: Store, stranger: Member) -> None:
    def prepare(work: UnitOfWork) -> None:
        work.devices.put(device())
        work.deployments.put(deployment())

    write(store, prepare)

    with pytest.raises(ConflictError) as caught, store.begin() as work:
        work.deployments.put_member(stranger)

    assert caught.value.code is Code.STATE_CONFLICT


def test_the_newest_desired_state_replaces_the_one_before(store: Store) -> None:
    newer = replace(desired(), version=10, envelope=b"newer")
    with store.begin() as work:
        work.devices.put(device())
        work.deployments.put_desired(desired())
        assert work.deployments.desired(CAMERA) == desired()
        work.deployments.put_desired(newer)

        assert work.deployments.desired(CAMERA) == newer
        assert work.deployments.desired(PRESS) is None


def test_a_desired_state_belongs_to_a_device(store: Store) -> None:
    with pytest.raises(ConflictError), store.begin() as work:
        work.deployments.put_desired(desired())


# ---- telemetry -----------------------------------------------------------------------------------


def test_measurements_come_back_with_their_place_in_the_order_of_arrival(store: Store) -> None:
    rows = [measurement(2), measurement(1), measurement(1, PRESS, properties={})]
    with store.begin() as work:
        work.telemetry.add(rows)
        found = work.telemetry.tail(TelemetryFilter())

    assert [replace(row, id=0) for row in found] == rows
    assert [row.id for row in found] == sorted({row.id for row in found})
    assert found[0].id > 0


def test_measurements_already_there_are_skipped_and_not_counted(store: Store) -> None:
    write(store, lambda work: work.telemetry.add([measurement(1), measurement(2)]))

    with store.begin() as work:
        again = [measurement(2, body=b"other"), measurement(3), measurement(3)]

        assert work.telemetry.add(again) == 1
        assert [row.body for row in work.telemetry.tail(TelemetryFilter())] == [
            measurement(1).body
        ] * 3


def test_epochs_and_devices_number_for_themselves(store: Store) -> None:
    with store.begin() as work:
        rows = [measurement(1), measurement(1, epoch="10"), measurement(1, PRESS)]

        assert work.telemetry.add(rows) == 3


def test_adding_nothing_adds_nothing(store: Store) -> None:
    with store.begin() as work:
        assert work.telemetry.add([]) == 0
        work.telemetry.quarantine([])
        assert work.telemetry.count() == 0


def test_a_nul_from_a_device_does_not_stop_a_batch(store: Store) -> None:
    with store.begin() as work:
        assert work.telemetry.add([measurement(1, output="a\0b", properties={"k": "\0"})]) == 1

        assert work.telemetry.tail(TelemetryFilter())[0].properties == {"k": "\0"}


def mixed(work: UnitOfWork) -> None:
    work.telemetry.add([measurement(seq, (CAMERA, PRESS)[seq % 2]) for seq in range(1, 7)])
    work.telemetry.add([measurement(7, CAMERA, module="other")])


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (TelemetryFilter(), [1, 2, 3, 4, 5, 6, 7]),
        (TelemetryFilter(limit=2), [1, 2]),
        (TelemetryFilter(limit=2, newest=True), [6, 7]),
        (TelemetryFilter(limit=0, newest=True), []),
        (TelemetryFilter(limit=None, newest=True), [1, 2, 3, 4, 5, 6, 7]),
        (TelemetryFilter(device=CAMERA), [2, 4, 6, 7]),
        (TelemetryFilter(device=CAMERA, limit=2, newest=True), [6, 7]),
        (TelemetryFilter(device=CAMERA, module="classifier"), [2, 4, 6]),
        (TelemetryFilter(module="other"), [7]),
        (TelemetryFilter(device=DeviceId("nobody")), []),
    ],
)
def test_every_field_of_the_filter_narrows(
    store: Store, wanted: TelemetryFilter, expected: list[int]
) -> None:
    with store.begin() as work:
        mixed(work)

        assert seqs(work.telemetry.tail(wanted)) == expected
        assert seqs(work.telemetry.each(wanted)) == expected


def test_the_next_page_begins_behind_the_last_id(store: Store) -> None:
    with store.begin() as work:
        mixed(work)
        first = work.telemetry.tail(TelemetryFilter(limit=3))
        second = work.telemetry.tail(TelemetryFilter(limit=3, after_id=first[-1].id))
        newest = work.telemetry.each(TelemetryFilter(limit=9, newest=True, after_id=second[-1].id))

        assert (seqs(first), seqs(second), seqs(newest)) == ([1, 2, 3], [4, 5, 6], [7])


@pytest.mark.parametrize(
    ("limit", "newest", "expected"),
    [(None, False, range(1, 2502)), (2000, False, range(1, 2001)), (2000, True, range(502, 2502))],
)
def test_each_goes_on_beyond_a_page(
    store: Store,
    limit: int | None,
    newest: bool,  # noqa: FBT001 - a column of the table above
    expected: range,
) -> None:
    with store.begin() as work:
        work.telemetry.add([measurement(seq) for seq in range(1, 2502)])

        found = work.telemetry.each(TelemetryFilter(limit=limit, newest=newest))
        assert seqs(found) == list(expected)


def test_rows_are_counted_by_device(store: Store) -> None:
    with store.begin() as work:
        mixed(work)

        assert work.telemetry.count() == 7
        assert work.telemetry.counts_by_device() == {CAMERA: 4, PRESS: 3}


def test_a_message_is_quarantined_once(store: Store) -> None:
    bad = Quarantined(CAMERA, AT, "not JSON", b"\xff")
    foreign = replace(bad, device=PRESS)
    with store.begin() as work:
        work.telemetry.quarantine([bad, foreign])
        work.telemetry.quarantine([replace(bad, received_at=AT + timedelta(seconds=1))])

        assert work.telemetry.quarantined() == [bad, foreign]
        assert work.telemetry.quarantined(CAMERA) == [bad]


def test_the_quarantine_of_a_device_is_bounded(store: Store) -> None:
    bad = [Quarantined(CAMERA, AT, "not JSON", bytes([number])) for number in range(150)]
    with store.begin() as work:
        work.telemetry.quarantine([replace(bad[0], device=PRESS)])
        work.telemetry.quarantine(bad)

        assert work.telemetry.quarantined(CAMERA, limit=1000) == bad[50:]
        assert work.telemetry.quarantined(limit=2) == bad[-2:]
        assert len(work.telemetry.quarantined(PRESS)) == 1


# ---- registry ------------------------------------------------------------------------------------


def test_a_manifest_belongs_to_its_repository(store: Store) -> None:
    record = manifest(subject=digest_of(b"subject"))
    with store.begin() as work:
        work.oci.put_manifest("a/b", record)

        assert work.oci.manifest("a/b", record.digest) == record
        assert work.oci.manifest("other", record.digest) is None


def test_the_same_manifest_again_changes_nothing(store: Store) -> None:
    with store.begin() as work:
        work.oci.put_manifest("a", manifest())
        work.oci.put_manifest("a", manifest(media_type="text/plain"))

        assert work.oci.manifest("a", manifest().digest) == manifest()


def test_a_tag_moves_to_another_manifest(store: Store) -> None:
    old, new = manifest(b"1"), manifest(b"2")
    with store.begin() as work:
        for record in (old, new):
            work.oci.put_manifest("a", record)
            work.oci.put_tag("a", "latest", record.digest)

        assert work.oci.tag("a", "latest") == new.digest
        assert work.oci.tag("b", "latest") is None


def test_a_tag_names_a_manifest_of_its_repository(store: Store) -> None:
    write(store, lambda work: work.oci.put_manifest("a", manifest()))

    with pytest.raises(ConflictError), store.begin() as work:
        work.oci.put_tag("b", "latest", manifest().digest)


def test_a_tag_is_deleted_once(store: Store) -> None:
    with store.begin() as work:
        work.oci.put_manifest("a", manifest())
        work.oci.put_tag("a", "latest", manifest().digest)

        assert work.oci.delete_tag("a", "latest")
        assert not work.oci.delete_tag("a", "latest")
        assert work.oci.manifest("a", manifest().digest) == manifest()


def test_deleting_a_manifest_takes_its_tags_along(store: Store) -> None:
    doomed, other = manifest(b"1"), manifest(b"2")
    with store.begin() as work:
        for record in (doomed, other):
            work.oci.put_manifest("a", record)
        work.oci.put_tag("a", "1", doomed.digest)
        work.oci.put_tag("a", "2", other.digest)

        assert work.oci.delete_manifest("a", doomed.digest)
        assert not work.oci.delete_manifest("a", doomed.digest)
        assert work.oci.tags("a") == ["2"]


def test_tags_are_listed_in_pages_in_order_of_code_points(store: Store) -> None:
    tags = ["1-b", "1.0", "10", "A", "Z", "_x", "a", "a-1", "b"]
    with store.begin() as work:
        work.oci.put_manifest("a", manifest())
        for tag in reversed(tags):
            work.oci.put_tag("a", tag, manifest().digest)

        assert work.oci.tags("a") == tags
        assert work.oci.tags("a", last="A", limit=2) == ["Z", "_x"]
        assert list(work.oci.tags("a", limit=0)) == []


def test_referrers_are_found_in_order_of_digest(store: Store) -> None:
    subject = digest_of(b"subject")
    records = [manifest(bytes([number]), subject=subject) for number in range(5)]
    with store.begin() as work:
        for record in [*records, manifest(b"none")]:
            work.oci.put_manifest("a", record)
        work.oci.put_manifest("b", records[0])

        found = work.oci.referrers("a", subject)
    assert found == sorted(records, key=lambda record: record.digest)


def test_a_blob_is_visible_where_it_is_linked(store: Store) -> None:
    digest = digest_of(b"blob")
    with store.begin() as work:
        for repository in ("b", "a", "a"):
            work.oci.link_blob(repository, digest)

        assert work.oci.has_blob("a", digest)
        assert not work.oci.has_blob("c", digest)
        assert work.oci.repositories_of_blob(digest) == ["a", "b"]
        assert work.oci.unlink_blob("a", digest)
        assert not work.oci.unlink_blob("a", digest)
        assert work.oci.repositories_of_blob(digest) == ["b"]


def test_repositories_are_listed_once_each(store: Store) -> None:
    with store.begin() as work:
        work.oci.put_manifest("b/x", manifest())
        work.oci.link_blob("b/x", digest_of(b"blob"))
        work.oci.link_blob("a-1", digest_of(b"blob"))

        assert work.oci.repositories() == ["a-1", "b/x"]
