from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.adapters.images.auth import answer_challenge, authorization, parse_token
from agent.adapters.images.documents import (
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    check_machine,
    choose_child,
    parse_config,
    parse_manifest,
)
from protocol.errors import Code, FleetError
from protocol.ids import ImageRef
from protocol.messages import Credential

DIGEST = "sha256:" + "1" * 64
OTHER = "sha256:" + "2" * 64
LAYER = "application/vnd.oci.image.layer.v1.tar"
IMAGE = ImageRef("registry:5000", "demo/digits")
BASIC = Credential("basic", username="device", password="secret")


def descriptor(digest: str = DIGEST, **more: object) -> dict[str, object]:
    return {"mediaType": LAYER, "digest": digest, "size": 5} | more


def test_a_manifest_has_a_configuration_and_layers() -> None:
    base = descriptor(annotations={"io.rimward.layer": "base"})
    raw = json.dumps({"config": descriptor(), "layers": [base, descriptor(OTHER)], "x": 1})

    manifest = parse_manifest(raw.encode())

    assert isinstance(manifest, Manifest)
    assert [layer.is_base for layer in manifest.layers] == [True, False]


def test_an_index_offers_the_manifest_of_this_machine() -> None:
    machines = [
        descriptor(platform={"architecture": "unknown", "os": "unknown"}),
        descriptor(OTHER, platform={"architecture": "arm64", "os": "linux", "variant": "v8"}),
    ]
    index = parse_manifest(json.dumps({"manifests": machines}).encode())

    assert isinstance(index, Index)
    assert choose_child(index, "arm64").digest == OTHER
    with pytest.raises(FleetError) as caught:
        choose_child(index, "riscv64")
    assert caught.value.code is Code.IMAGE_UNSUITABLE


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"config": descriptor()},
        {"config": descriptor(), "layers": [descriptor("sha256:xyz")]},
        {"config": descriptor(), "layers": [descriptor("sha512:" + "1" * 128)]},
        {"config": descriptor(), "layers": [descriptor(size=-1)]},
        {"config": descriptor(), "layers": [descriptor(size=2**60)]},
        {"config": descriptor(), "layers": [descriptor()] * 257},
        {"config": descriptor(), "layers": [], "manifests": []},
        {"manifests": {}},
        [],
    ],
)
def test_what_is_no_image_is_refused(document: object) -> None:
    with pytest.raises(FleetError) as caught:
        parse_manifest(json.dumps(document).encode())

    assert caught.value.code is Code.IMAGE_UNSUITABLE


@given(raw=st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(raw: bytes) -> None:
    for parse in (parse_manifest, parse_config):
        with pytest.raises(FleetError):
            parse(raw + b"\xff")


def test_a_configuration_is_read_with_nulls_as_engines_write_them() -> None:
    raw = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": None, "Cmd": None, "Labels": {"io.rimward.python": "3.12"}},
        }
    )

    config = parse_config(raw.encode())

    assert config.python == "3.12"
    assert parse_config(b'{"config": null}').config.cmd is None


@pytest.mark.parametrize(
    "config", [ImageConfig("arm64", "linux"), ImageConfig("amd64", "windows"), ImageConfig()]
)
def test_an_image_for_another_machine_is_refused(config: ImageConfig) -> None:
    check_machine(ImageConfig("amd64", "linux"), "amd64")

    with pytest.raises(FleetError) as caught:
        check_machine(config, "amd64")

    assert caught.value.code is Code.IMAGE_UNSUITABLE


def test_layers_are_plain_or_gzip() -> None:
    assert not Descriptor(LAYER, DIGEST, 5).is_gzip
    assert Descriptor(f"{LAYER}+gzip", DIGEST, 5).is_gzip
    with pytest.raises(FleetError) as caught:
        Descriptor(f"{LAYER}+zstd", DIGEST, 5).is_gzip  # noqa: B018 - the property refuses
    assert caught.value.code is Code.IMAGE_UNSUITABLE


def test_credentials_become_headers() -> None:
    assert authorization(Credential("bearer", "abc")) == "Bearer abc"
    assert authorization(BASIC) == "Basic ZGV2aWNlOnNlY3JldA=="
    assert authorization(Credential("anonymous")) is None


def test_a_challenge_says_where_the_token_is() -> None:
    challenge = 'Basic realm="x", Bearer realm="https://auth/token?a=1",service="reg",scope="s:p"'

    request = answer_challenge(challenge, IMAGE, BASIC, allow_plain=False)

    assert request.url == "https://auth/token?a=1&scope=s%3Ap&service=reg"
    assert request.authorization == authorization(BASIC)


@pytest.mark.parametrize(
    ("challenge", "credential"),
    [
        ('Basic realm="x"', BASIC),
        ("", BASIC),
        ("Bearer", BASIC),
        ('Bearer service="x"', BASIC),
        ('Bearer realm="http://auth/token"', BASIC),
        ('Bearer realm="file:///etc/passwd"', BASIC),
        ('Bearer realm="https://auth/token"', Credential("bearer", "abc")),
    ],
)
def test_a_challenge_without_a_safe_answer_is_a_refusal(
    challenge: str, credential: Credential
) -> None:
    with pytest.raises(FleetError) as caught:
        answer_challenge(challenge, IMAGE, credential, allow_plain=False)

    assert caught.value.code is Code.REGISTRY_REFUSED


def test_a_token_has_two_names() -> None:
    assert parse_token(b'{"token": "a"}', IMAGE) == "a"
    assert parse_token(b'{"access_token": "b"}', IMAGE) == "b"


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b'{"token": 5}', b'{"token": "a\\nb"}', b'"x"', b" " * 70_000]
)
def test_an_answer_without_a_token_is_a_refusal(raw: bytes) -> None:
    with pytest.raises(FleetError) as caught:
        parse_token(raw, IMAGE)

    assert caught.value.code is Code.REGISTRY_REFUSED
