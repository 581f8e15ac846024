from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agent.adapters.docker.engine import DockerEngine
from agent.adapters.docker.images import DockerImages
from agent.adapters.docker.options import create_body, is_loopback, to_instance
from agent.adapters.docker.pull import (
    Progress,
    engine_credential,
    follow,
    place_certificate,
    pull_error,
)
from agent.adapters.docker.runtime import DockerRuntime
from agent.core.plan import InstanceState, ModuleSpec
from protocol.errors import Code, FleetError
from protocol.ids import DeviceId, ModuleName, parse_image_ref
from protocol.messages import Credential

DIGEST = "sha256:" + "1" * 64
IMAGE = parse_image_ref(f"registry.example:5000/demo/digits@{DIGEST}")
DEVICE = DeviceId("device-1")


def body(options: dict[str, Any] | None = None, **env: str) -> dict[str, Any]:
    spec = ModuleSpec(ModuleName("digits"), IMAGE, create_options=options or {}, env=env)
    return create_body(DEVICE, spec)


def test_options_pass_through_and_the_manifests_environment_wins() -> None:
    made = body({"Env": ["A=1", "B=1"], "User": "65532", "HostConfig": {"Memory": 5}}, B="2")

    assert made["User"] == "65532"
    assert made["HostConfig"]["Memory"] == 5
    assert made["Env"] == [
        "A=1",
        "B=2",
        "RIMWARD_MODULE_HOST=0.0.0.0",
        "RIMWARD_MODULE_PORT=5001",
    ]
    assert made["Image"] == str(IMAGE)


def test_the_port_is_published_on_loopback_unless_it_is_bound() -> None:
    bound = {"5001/tcp": [{"HostPort": "80"}], "9/udp": [{"HostPort": "9"}]}

    assert body()["HostConfig"]["PortBindings"] == {
        "5001/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]
    }
    assert body({"HostConfig": {"PortBindings": bound}})["HostConfig"]["PortBindings"] == bound


def test_the_engine_neither_restarts_nor_removes_nor_logs_without_end() -> None:
    host = body({"HostConfig": {"RestartPolicy": {"Name": "always"}, "AutoRemove": True}})
    own_log = {"Type": "journald"}

    assert host["HostConfig"]["RestartPolicy"] == {"Name": "no"}
    assert host["HostConfig"]["AutoRemove"] is False
    assert host["HostConfig"]["LogConfig"]["Config"] == {"max-size": "5m", "max-file": "2"}
    assert body({"HostConfig": {"LogConfig": own_log}})["HostConfig"]["LogConfig"] == own_log


@pytest.mark.parametrize(
    "wrong",
    [{"Env": "A=1"}, {"Env": [1]}, {"HostConfig": [1]}, {"HostConfig": {"PortBindings": [1]}}],
)
def test_options_of_a_wrong_type_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(FleetError) as caught:
        body(wrong)

    assert caught.value.code is Code.MODULE_START_FAILED


def container(**more: Any) -> dict[str, Any]:
    made = body()
    return {
        "Config": {"Labels": made["Labels"]},
        "HostConfig": {"NetworkMode": "default"},
        "State": {"Running": True, "Status": "running", "StartedAt": "2030-01-01T00:00:01.5Z"},
        "NetworkSettings": {"Ports": {"5001/tcp": [{"HostIp": "0.0.0.0", "HostPort": "4321"}]}},
    } | more


def test_a_container_is_an_instance() -> None:
    instance = to_instance(container())

    assert instance is not None
    spec = ModuleSpec(ModuleName("digits"), IMAGE)
    assert (instance.id, instance.image) == (spec.instance_id, DIGEST)
    assert (instance.endpoint, instance.started_at) == ("http://127.0.0.1:4321", 1893456001.5)


@pytest.mark.parametrize(
    ("more", "endpoint"),
    [
        ({"HostConfig": {"NetworkMode": "host"}}, "http://127.0.0.1:5001"),
        ({"NetworkSettings": {"Ports": {}}}, None),
        (
            {"NetworkSettings": {"Ports": {"5001/tcp": [{"HostIp": "10.1.1.1", "HostPort": "5"}]}}},
            "http://10.1.1.1:5",
        ),
    ],
)
def test_the_endpoint_is_where_the_engine_published_it(
    more: dict[str, Any], endpoint: str | None
) -> None:
    instance = to_instance(container(**more))

    assert instance is not None
    assert instance.endpoint == endpoint


def test_a_container_that_was_never_started_has_no_exit_code() -> None:
    state = {"Running": False, "Status": "created", "ExitCode": 0, "StartedAt": "0001-01-01T00:00Z"}
    instance = to_instance(container(State=state))

    assert instance is not None
    assert (instance.state, instance.exit_code) == (InstanceState.EXITED, None)


def test_a_container_of_somebody_else_is_no_instance() -> None:
    assert to_instance(container(Config={"Labels": None})) is None


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        ("127.0.0.1:5000", True),
        ("127.8.8.8", True),
        ("localhost:5000", True),
        ("[::1]:5000", True),
        ("10.0.0.5:8443", False),
        ("localhost.example:5000", False),
        ("registry.example", False),
    ],
)
def test_loopback_is_told_from_elsewhere(authority: str, *, expected: bool) -> None:
    assert is_loopback(authority) is expected


@pytest.mark.parametrize(
    ("sentence", "code"),
    [
        ("filesystem layer verification failed for digest sha256:1", Code.DIGEST_MISMATCH),
        ("image config verification failed for digest", Code.DIGEST_MISMATCH),
        ("manifest verification failed for digest", Code.DIGEST_MISMATCH),
        ("unauthorized: authentication required", Code.REGISTRY_REFUSED),
        ("pull access denied for x, repository does not exist", Code.REGISTRY_REFUSED),
        ("Get https://r/v2/: no basic auth credentials", Code.REGISTRY_REFUSED),
        ("write /var/lib/docker/tmp/x: no space left on device", Code.DISK_FULL),
        ("no matching manifest for linux/amd64 in the manifest list", Code.IMAGE_UNSUITABLE),
        ("manifest for x not found: manifest unknown", Code.IMAGE_UNAVAILABLE),
        ("dial tcp 10.0.0.5:443: connect: connection refused", Code.IMAGE_UNAVAILABLE),
        ("x509: certificate signed by unknown authority", Code.IMAGE_UNAVAILABLE),
    ],
)
def test_the_engines_sentences_have_codes(sentence: str, code: Code) -> None:
    assert pull_error(IMAGE, sentence).code is code


def test_an_unknown_authority_is_named_with_the_file_that_helps() -> None:
    hint = pull_error(IMAGE, "x509: certificate signed by unknown authority").hint

    assert hint is not None
    assert "/etc/docker/certs.d/registry.example:5000/ca.crt" in hint


def test_progress_counts_bytes_once() -> None:
    progress = Progress()
    lines: list[dict[str, Any]] = [
        {"status": "Pulling from demo/digits", "id": DIGEST},
        {"status": "Already exists", "id": "a"},
        {"status": "Downloading", "id": "b", "progressDetail": {"current": 10, "total": 100}},
        {"status": "Downloading", "id": "b", "progressDetail": {"current": 60, "total": 100}},
        {"status": "Download complete", "id": "b", "progressDetail": {}},
        {"status": "Extracting", "id": "b", "progressDetail": {"current": 999, "total": 999}},
        {"status": "Downloading", "id": "c", "progressDetail": {"current": 7}},
    ]

    follow(lines, IMAGE, progress)

    assert progress.bytes_received == 107


def test_an_error_in_the_stream_is_an_error() -> None:
    with pytest.raises(FleetError) as caught:
        follow([{"status": "x"}, {"error": "toomanyrequests: slow down"}], IMAGE, Progress())

    assert caught.value.code is Code.IMAGE_UNAVAILABLE


def test_credentials_are_passed_as_the_engine_takes_them() -> None:
    assert engine_credential(Credential("bearer", "abc")) == {"registrytoken": "abc"}
    basic = Credential("basic", username="u", password="p")
    assert engine_credential(basic) == {"username": "u", "password": "p"}
    assert engine_credential(Credential("anonymous")) == {}


def test_a_certificate_is_placed_for_a_registry_elsewhere_only(tmp_path: Path) -> None:
    assert place_certificate("10.0.0.5:8443", "PEM", tmp_path)
    assert place_certificate("127.0.0.1:8443", "PEM", tmp_path)
    assert place_certificate("10.0.0.6:8443", "", tmp_path)

    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["PEM"]
    assert (tmp_path / "10.0.0.5:8443" / "ca.crt").exists()


def test_a_certificate_that_cannot_be_placed_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert not place_certificate("10.0.0.5:8443", "PEM", tmp_path / "file")


def test_a_pull_that_a_reboot_cut_is_known(tmp_path: Path) -> None:
    images = DockerImages(tmp_path / "images.json")
    assert not images.begin(DIGEST)
    assert not DockerImages(tmp_path / "images.json").begin(DIGEST)

    record = (tmp_path / "images.json").read_text()
    (tmp_path / "images.json").write_text(record.replace(f'"{DIGEST}":"', f'"{DIGEST}":"before-'))
    images = DockerImages(tmp_path / "images.json")

    assert images.begin(DIGEST)
    images.finish(DIGEST, "name")
    assert images.whole() == {DIGEST: "name"}
    images.forget(DIGEST)
    assert DockerImages(tmp_path / "images.json").whole() == {}


def test_an_engine_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    runtime = DockerRuntime(DockerEngine(f"unix://{tmp_path}/none.sock"), DEVICE, tmp_path)
    calls = (
        runtime.observe(),
        runtime.pull(IMAGE, Credential("anonymous")),
        runtime.start(ModuleSpec(ModuleName("digits"), IMAGE)),
        runtime.stop("digits.0"),
        runtime.logs("digits.0"),
        runtime.remove_images(frozenset()),
    )

    async def scenario() -> None:
        for call in calls:
            with pytest.raises(FleetError) as caught:
                await call
            assert caught.value.code is Code.RUNTIME_UNAVAILABLE

    asyncio.run(scenario())
