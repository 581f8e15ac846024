"""Deployment manifests: IoT Edge's rules, one refusing example for each, with its path."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import strategies
from hostile import each_document, raises_only_ours, refusal
from hypothesis import given
from hypothesis import strategies as st
from manifest_sample import AGENT, DETECTOR, HUB, SAMPLE, Gone, changed, written

from protocol.errors import Code, InvalidError
from protocol.manifest import (
    LAST,
    MAX_BYTES,
    EnvValue,
    GoldenSample,
    GoldenSamples,
    InputSource,
    Manifest,
    Module,
    Probe,
    Probes,
    RouteSettings,
    parse_manifest,
    read_manifest,
)

TEXT = "d" * 4096


def detector(manifest: Manifest) -> Module:
    return manifest.agent.modules["detector"]


def with_detector(key: str, value: Any) -> Module:
    return detector(parse_manifest(written(changed(f"{DETECTOR}.{key}", value))))


# ---- what is read -------------------------------------------------------------------------------


def test_reads_a_manifest_of_iot_edge() -> None:
    manifest = parse_manifest(written(SAMPLE))

    module = detector(manifest)
    assert module.settings.image == "registry.example/vision/detector:7"
    assert module.settings.create_options == '{"HostConfig":{"Memory":536870912}}'
    assert module.startup_order == 2
    assert module.env["THRESHOLD"].text() == "0.6"
    assert manifest.modules == manifest.agent.modules
    assert manifest.module_desired == {"detector": {"fps": 5}}


def test_reads_credentials_and_system_modules() -> None:
    agent = parse_manifest(written(SAMPLE)).agent

    assert agent.runtime.settings.registry_credentials["siteRegistry"].address == "registry.example"
    assert agent.system_modules.edge_agent is not None
    assert agent.system_modules.edge_hub is not None


def test_reads_both_forms_of_a_route() -> None:
    manifest = parse_manifest(written(SAMPLE))

    assert manifest.routes["up"].sink == "upstream"
    assert manifest.routes["act"].module == "actuator"
    act = manifest.hub.routes["act"]
    assert isinstance(act, RouteSettings)
    assert (act.priority, act.time_to_live_secs) == (0, 86400)


def test_what_may_be_left_out_has_its_default() -> None:
    smallest = {
        "modulesContent": {
            "$edgeAgent": {"properties.desired": {"schemaVersion": "1.0"}},
            "$edgeHub": {"properties.desired": {"schemaVersion": "1.0"}},
        }
    }

    manifest = read_manifest(smallest)

    assert manifest.modules == {}
    assert manifest.routes == {}
    assert manifest.hub.store_and_forward_configuration.time_to_live_secs == 7200


def test_a_module_without_an_order_starts_last() -> None:
    manifest = read_manifest(changed(f"{DETECTOR}.startupOrder", Gone))

    assert detector(manifest).startup_order == LAST


@pytest.mark.parametrize(
    ("value", "expected"),
    [("a", "a"), ("", ""), (1, "1"), (0.6, "0.6"), (True, "true"), (False, "false")],
)
def test_a_module_sees_values_of_its_environment_as_text(value: Any, expected: str) -> None:
    assert with_detector("env.THRESHOLD.value", value).env["THRESHOLD"] == EnvValue(value)
    assert EnvValue(value).text() == expected


def test_reads_our_own_keys() -> None:
    probe = {"kind": "http", "path": "/ready", "timeoutSeconds": 5}
    assert with_detector("x-probes", {"ready": probe}).probes == Probes(Probe("http", "/ready", 5))

    sample = {"input": {"x": [1]}, "expected": [2], "tolerance": 0.5}
    golden = with_detector("x-goldenSamples", {"samples": [sample], "minPass": 0.9})
    assert golden.golden_samples == GoldenSamples(
        samples=[GoldenSample(input={"x": [1]}, expected=[2], tolerance=0.5)], min_pass=0.9
    )

    inputs = with_detector("x-inputs", {"camera": {"directory": "frames"}})
    assert inputs.inputs == {"camera": InputSource(directory="frames")}
    assert with_detector("x-port", 8080).port == 8080


@pytest.mark.parametrize(
    "path", ["x-note", "modulesContent.$edgeAgent.x-note", f"{AGENT}.x-note", f"{DETECTOR}.x-note"]
)
def test_other_keys_behind_x_are_left_alone(path: str) -> None:
    assert "detector" in read_manifest(changed(path, {"any": "thing"})).modules


def test_reading_leaves_the_document_alone() -> None:
    document = changed(f"{DETECTOR}.settings.createOptions01", " ")
    before = copy.deepcopy(document)
    read_manifest(document)

    assert document == before


@given(strategies.manifests)
def test_reads_what_the_rules_allow(document: dict[str, Any]) -> None:
    manifest = parse_manifest(json.dumps(document).encode())

    content = document["modulesContent"]
    wanted = content["$edgeAgent"]["properties.desired"]["modules"]
    assert manifest.modules.keys() == wanted.keys()
    assert all(
        module.settings.image == wanted[name]["settings"]["image"]
        for name, module in manifest.agent.modules.items()
    )
    assert manifest.module_desired == {name: content[name]["properties.desired"] for name in wanted}


# ---- what is refused ----------------------------------------------------------------------------

WRONG: list[tuple[str, Any]] = [
    # the frame
    ("modulesContent", Gone),
    ("modulesContent", []),
    ("modulesContent.$edgeAgent", Gone),
    ("modulesContent.$edgeHub", Gone),
    ("modulesContent.$edgeHub", None),
    ("modulesContent.$edgeStore", {"properties.desired": {}}),
    ("modulesContent.a b", {"properties.desired": {}}),
    ("more", {}),
    ("modulesContent.$edgeAgent.more", {}),
    (AGENT, Gone),
    (AGENT, "text"),
    (f"{AGENT}.more", 1),
    # $edgeAgent
    (f"{AGENT}.schemaVersion", Gone),
    (f"{AGENT}.schemaVersion", "1.2"),
    (f"{AGENT}.runtime.type", "podman"),
    (f"{AGENT}.runtime.more", 1),
    (f"{AGENT}.runtime.settings.minDockerVersion", 1),
    (f"{AGENT}.runtime.settings.loggingOptions", {}),
    (f"{AGENT}.runtime.settings.registryCredentials.a b", {}),
    (f"{AGENT}.runtime.settings.registryCredentials.a#b", {}),
    (f"{AGENT}.runtime.settings.registryCredentials.siteRegistry.username", Gone),
    (f"{AGENT}.runtime.settings.registryCredentials.siteRegistry.password", Gone),
    (f"{AGENT}.runtime.settings.registryCredentials.siteRegistry.address", Gone),
    (f"{AGENT}.runtime.settings.registryCredentials.siteRegistry.address", ""),
    (f"{AGENT}.systemModules.edgeAgent.status", "running"),
    (f"{AGENT}.systemModules.edgeAgent.restartPolicy", "always"),
    (f"{AGENT}.systemModules.edgeAgent.startupOrder", 1),
    (f"{AGENT}.systemModules.edgeAgent.settings", Gone),
    (f"{AGENT}.systemModules.edgeAgent.type", "process"),
    (f"{AGENT}.systemModules.edgeHub.status", "stopped"),
    (f"{AGENT}.systemModules.edgeHub.status", Gone),
    (f"{AGENT}.systemModules.edgeHub.restartPolicy", "never"),
    (f"{AGENT}.systemModules.edgeHub.startupOrder", -1),
    (f"{AGENT}.systemModules.third", {}),
    (f"{AGENT}.modules", []),
    (f"{AGENT}.modules.a b", {}),
    (f"{AGENT}.modules.$edgeAgent", {}),
    (f"{AGENT}.modules.{'m' * 129}", {}),
    (DETECTOR, 5),
    (f"{DETECTOR}.type", Gone),
    (f"{DETECTOR}.type", "process"),
    (f"{DETECTOR}.status", Gone),
    (f"{DETECTOR}.status", "paused"),
    (f"{DETECTOR}.restartPolicy", Gone),
    (f"{DETECTOR}.restartPolicy", "sometimes"),
    (f"{DETECTOR}.imagePullPolicy", "always"),
    (f"{DETECTOR}.startupOrder", -1),
    (f"{DETECTOR}.startupOrder", 4294967296),
    (f"{DETECTOR}.startupOrder", 1.5),
    (f"{DETECTOR}.version", 1),
    (f"{DETECTOR}.integrity", {}),
    (f"{DETECTOR}.settings", Gone),
    (f"{DETECTOR}.settings", "image"),
    (f"{DETECTOR}.settings.image", Gone),
    (f"{DETECTOR}.settings.image", ""),
    (f"{DETECTOR}.settings.image", "i" * 4097),
    (f"{DETECTOR}.settings.digest", 5),
    (f"{DETECTOR}.settings.more", 1),
    (f"{DETECTOR}.env.THRESHOLD", 5),
    (f"{DETECTOR}.env.THRESHOLD.value", Gone),
    (f"{DETECTOR}.env.THRESHOLD.value", None),
    (f"{DETECTOR}.env.THRESHOLD.value", [1]),
    (f"{DETECTOR}.env.THRESHOLD.value", "a\0b"),
    (f"{DETECTOR}.env.THRESHOLD.more", 1),
    *((f"{DETECTOR}.env.A{c}B", {"value": 1}) for c in "+#$ =\t\0"),
    # ours
    (f"{DETECTOR}.x-port", 0),
    (f"{DETECTOR}.x-port", 65536),
    (f"{DETECTOR}.x-probes.live", {}),
    (f"{DETECTOR}.x-probes.ready", {"kind": "exec"}),
    (f"{DETECTOR}.x-probes.ready", {"timeoutSeconds": 0}),
    (f"{DETECTOR}.x-goldenSamples", {"samples": []}),
    (f"{DETECTOR}.x-goldenSamples", {"samples": [{"input": 1}]}),
    (f"{DETECTOR}.x-goldenSamples", {"samples": [{"input": 1, "expected": 1, "more": 1}]}),
    (f"{DETECTOR}.x-goldenSamples", {"samples": [{"input": 1, "expected": 1}], "minPass": 0}),
    (f"{DETECTOR}.x-inputs.camera", {"directory": "../etc"}),
    (f"{DETECTOR}.x-inputs.camera", {"directory": "frames\n"}),
    (f"{DETECTOR}.x-inputs.camera", {"directory": "frames", "output": "a/b"}),
    # $edgeHub
    (f"{HUB}.schemaVersion", Gone),
    (f"{HUB}.schemaVersion", 1.1),
    (f"{HUB}.more", {}),
    (f"{HUB}.routes.up", 5),
    (f"{HUB}.routes.up", "anything"),
    (f"{HUB}.routes.a b", "FROM /* INTO $upstream"),
    (f"{HUB}.routes.act.route", "FROM /messages/* WHERE a = 'high' INTO $upstream"),
    (f"{HUB}.routes.act.route", Gone),
    (f"{HUB}.routes.act.priority", 10),
    (f"{HUB}.routes.act.priority", -1),
    (f"{HUB}.routes.act.timeToLiveSecs", 4294967296),
    (f"{HUB}.routes.act.more", 1),
    (f"{HUB}.storeAndForwardConfiguration.timeToLiveSecs", "7200"),
    (f"{HUB}.storeAndForwardConfiguration.storeLimits", {}),
    # twins
    ("modulesContent.detector", {}),
    ("modulesContent.detector", {"properties.desired": 5}),
    ("modulesContent.detector", {"properties.desired": {"a.b": 1}}),
    ("modulesContent.detector.tags", {}),
]


@pytest.mark.parametrize(("path", "value"), WRONG, ids=lambda part: ascii(part)[-60:])
def test_refuses_and_says_where(path: str, value: Any) -> None:
    with pytest.raises(InvalidError) as caught:
        parse_manifest(written(changed(path, value)))

    assert caught.value.code is Code.MANIFEST_INVALID
    assert caught.value.hint
    # a missing key is named by its parent, in backticks; `\0` is quoted
    parent, _, last = ascii(path)[1:-1].rpartition(".")
    message = str(caught.value)
    assert (
        (path in message)
        or (ascii(path)[1:-1] in message)
        or (parent in message and last in message)
    )


def test_a_where_condition_is_refused_with_its_reason() -> None:
    condition = (
        "FROM /messages/modules/detector/outputs/alarm WHERE severity = 'high' INTO $upstream"
    )

    with pytest.raises(InvalidError, match="WHERE condition is not supported") as caught:
        read_manifest(changed(f"{HUB}.routes.act.route", condition))
    assert f"{HUB}.routes.act" in str(caught.value)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("$edgeAgent", "properties.desired.modules.extra", {}),
        ("$edgeHub", "properties.desired.routes.up", "FROM /* INTO $upstream"),
        ("detector", "properties.desired.limits", {"max": 4}),
    ],
)
def test_a_layer_is_not_a_whole_manifest(section: str, key: str, value: Any) -> None:
    document = copy.deepcopy(SAMPLE)
    document["modulesContent"][section][key] = value

    with pytest.raises(InvalidError, match="belongs to a layered deployment") as caught:
        read_manifest(document)
    assert f"modulesContent.{section}.{key}" in str(caught.value)


def test_says_which_keys_are_known() -> None:
    with pytest.raises(InvalidError) as caught:
        read_manifest(changed(f"{DETECTOR}.env.THRESHOLD.valeu", 1))
    assert caught.value.hint == "known here: value; our own start with 'x-'"


def test_a_manifest_has_a_limit() -> None:
    with pytest.raises(InvalidError) as caught:
        parse_manifest(b" " * (MAX_BYTES + 1))
    assert caught.value.code is Code.TOO_LARGE


def test_a_long_key_is_quoted_in_part() -> None:
    with pytest.raises(InvalidError) as caught:
        read_manifest(changed("k" * 100_000, 1))
    assert len(str(caught.value)) < 500


@each_document
def test_hostile_bytes_are_refused(raw: bytes) -> None:
    raises_only_ours(parse_manifest, raw)


@pytest.mark.parametrize(
    "path", ["x-note", f"{DETECTOR}.x-goldenSamples", f"{AGENT}.modules", f"{DETECTOR}.settings"]
)
@each_document
def test_hostile_values_in_a_place_raise_only_ours(raw: bytes, path: str) -> None:
    whole = written(changed(path, "HERE")).replace(b'"HERE"', raw)

    assert refusal(parse_manifest, whole) in {None, Code.MANIFEST_INVALID, Code.TOO_LARGE}


@given(st.binary(max_size=60))
def test_any_bytes_are_refused(raw: bytes) -> None:
    assert refusal(parse_manifest, raw) is Code.MANIFEST_INVALID


@given(
    path=st.sampled_from([path for path, _ in WRONG if path != "modulesContent"]), data=st.data()
)
def test_any_value_in_any_place_is_read_or_refused(path: str, data: st.DataObject) -> None:
    raw = written(changed(path, data.draw(strategies.json_values)))

    assert refusal(parse_manifest, raw) in {None, Code.MANIFEST_INVALID}
