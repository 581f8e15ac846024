"""Every place images are put into: the hub's own store, the hub over HTTP, and docker-registry."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from foreign_registry import LOGIN, Running, free_port
from packaging_lab import Workshop, make_wheel
from registry_lab import Served, serve_registry
from requirements_gate import require

from hub.adapters.blobs import DiskBlobs
from hub.adapters.memory import MemoryStore
from hub.adapters.registry.embedded import EmbeddedRegistry
from hub.adapters.registry.login import Login
from hub.adapters.registry.remote import RemoteRegistry, RemoteSettings
from hub.core.distribution import OCI_MANIFEST
from hub.core.packaging import ImageRegistry, Layer, LayerKind, image_manifest
from protocol.errors import Code, FleetError
from protocol.ids import Digest, digest_of

_numbers = itertools.count()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve_registry(tmp_path_factory.mktemp("own")) as found:
        yield found


@contextlib.contextmanager
def _own(request: pytest.FixtureRequest) -> Iterator[ImageRegistry]:
    url = request.getfixturevalue("served").url.removeprefix("http://")
    remote = RemoteRegistry(RemoteSettings(url, LOGIN, plain_http=True, pause_seconds=0))
    with contextlib.closing(remote):
        yield remote


@contextlib.contextmanager
def _foreign(request: pytest.FixtureRequest) -> Iterator[ImageRegistry]:
    running = request.getfixturevalue("docker_registry")
    settings = RemoteSettings(running.authority, LOGIN, ca_file=running.ca_file, pause_seconds=0)
    with contextlib.closing(RemoteRegistry(settings)) as remote:
        yield remote


@contextlib.contextmanager
def _embedded(request: pytest.FixtureRequest) -> Iterator[ImageRegistry]:
    blobs = DiskBlobs(request.getfixturevalue("tmp_path"))
    yield EmbeddedRegistry("hub:5000", MemoryStore(), blobs)


@pytest.fixture(
    params=[
        pytest.param(_embedded, id="embedded"),
        pytest.param(_own, id="own-http"),
        pytest.param(_foreign, id="docker-registry", marks=pytest.mark.registry),
    ]
)
def registry(request: pytest.FixtureRequest) -> Iterator[ImageRegistry]:
    with request.param(request) as found:
        yield found


@pytest.fixture
def name() -> str:
    return f"team/image-{next(_numbers)}"


def code_of(call: Callable[[], object]) -> Code:
    with pytest.raises(FleetError) as caught:
        call()
    return caught.value.code


def put(registry: ImageRegistry, name: str, data: bytes) -> Digest:
    registry.put_blob(name, BytesIO(data), digest_of(data), len(data))
    return digest_of(data)


def manifest_of(config: bytes, layer: bytes) -> bytes:
    row = Layer(LayerKind.MODEL, digest_of(layer), len(layer), digest_of(layer), compressed=False)
    return image_manifest(digest_of(config), len(config), [row])


def push(registry: ImageRegistry, name: str, tag: str | None, layer: bytes = b"layer") -> bytes:
    put(registry, name, b"{}")
    put(registry, name, layer)
    content = manifest_of(b"{}", layer)
    registry.put_manifest(name, content, OCI_MANIFEST, tag)
    return content


@pytest.mark.parametrize("data", [b"", b"{}", b"x" * 2_500_000])
def test_a_blob_comes_back(registry: ImageRegistry, name: str, data: bytes) -> None:
    digest = put(registry, name, data)

    with registry.get_blob(name, digest) as file:
        assert file.read() == data


def test_a_blob_is_there_only_after_it_was_put(registry: ImageRegistry, name: str) -> None:
    digest = digest_of(name.encode())
    assert not registry.has_blob(name, digest)
    put(registry, name, name.encode())

    assert registry.has_blob(name, digest)
    assert not registry.has_blob(f"{name}-else", digest)


def test_a_blob_that_is_not_there_cannot_be_read(registry: ImageRegistry, name: str) -> None:
    assert code_of(lambda: registry.get_blob(name, digest_of(b"no"))) == Code.BLOB_UNKNOWN


def test_a_wrong_digest_is_refused(registry: ImageRegistry, name: str) -> None:
    wrong = digest_of(b"else")

    assert code_of(lambda: registry.put_blob(name, BytesIO(b"abcd"), wrong, 4)) == (
        Code.DIGEST_MISMATCH
    )
    assert not registry.has_blob(name, wrong)


def test_a_blob_is_mounted_from_a_known_repository(registry: ImageRegistry, name: str) -> None:
    digest = put(registry, name, name.encode())

    assert registry.mount_blob(f"{name}-b", digest, name)
    assert registry.has_blob(f"{name}-b", digest)


def test_what_is_not_there_cannot_be_mounted(registry: ImageRegistry, name: str) -> None:
    assert not registry.mount_blob(name, digest_of(b"nowhere"), f"{name}-b")


def test_a_manifest_comes_back_by_tag_and_by_digest(registry: ImageRegistry, name: str) -> None:
    content = push(registry, name, "v1")

    assert registry.get_manifest(name, "v1") == (content, OCI_MANIFEST)
    assert registry.get_manifest(name, digest_of(content)) == (content, OCI_MANIFEST)


def test_a_manifest_needs_no_tag(registry: ImageRegistry, name: str) -> None:
    content = push(registry, name, None)

    assert registry.get_manifest(name, digest_of(content))[0] == content


def test_a_tag_moves(registry: ImageRegistry, name: str) -> None:
    push(registry, name, "v1", b"old")
    newer = push(registry, name, "v1", b"new")

    assert registry.get_manifest(name, "v1")[0] == newer


@pytest.mark.parametrize("reference", ["v1", digest_of(b"nothing")])
def test_an_unknown_image_is_said_to_be_unknown(
    registry: ImageRegistry, name: str, reference: str
) -> None:
    assert code_of(lambda: registry.get_manifest(name, reference)) == Code.IMAGE_UNKNOWN


def test_a_manifest_of_missing_blobs_is_refused(registry: ImageRegistry, name: str) -> None:
    put(registry, name, b"{}")
    content = manifest_of(b"{}", b"never sent " + name.encode())

    with pytest.raises(FleetError):
        registry.put_manifest(name, content, OCI_MANIFEST, "v1")

    assert code_of(lambda: registry.get_manifest(name, "v1")) == Code.IMAGE_UNKNOWN


@pytest.mark.parametrize("bad", ["Upper", "a//b", ""])
def test_a_malformed_name_is_refused(registry: ImageRegistry, bad: str) -> None:
    assert code_of(lambda: put(registry, bad, b"x")) == Code.ID_INVALID


def test_a_built_image_lands_in_it_whole(
    registry: ImageRegistry, name: str, tmp_path: Path
) -> None:
    (tmp_path / "wheels").mkdir()
    make_wheel(tmp_path / "wheels", "tinyserver", "1.0")
    workshop = Workshop(tmp_path / "workshop", tmp_path / "wheels")
    recipe = workshop.recipe(name=name)
    builder, steps = workshop.builder, workshop.steps

    image = builder.build(recipe, registry, steps.append)
    again = builder.build(replace(recipe, name=f"{name}-copy"), registry, steps.append)

    content, _ = registry.get_manifest(name, "1")
    assert digest_of(content) == image.digest == again.digest
    for digest in (image.config_digest, *(layer.digest for layer in image.layers)):
        with registry.get_blob(name, digest) as file:
            assert digest_of(file.read()) == digest
    model = image.layers[-1].size
    assert again.sent_bytes in (0, model)


# ---- only over the network -----------------------------------------------------------------------


@pytest.mark.registry
def test_a_wrong_password_is_refused(docker_registry: Running) -> None:
    login = Login("admin", "wrong")
    settings = RemoteSettings(docker_registry.authority, login, ca_file=docker_registry.ca_file)
    with contextlib.closing(RemoteRegistry(settings)) as remote:
        assert code_of(lambda: put(remote, "team/x", b"x")) == Code.REGISTRY_REFUSED


@pytest.mark.registry
def test_a_registry_with_a_foreign_certificate_gets_nothing(docker_registry: Running) -> None:
    settings = RemoteSettings(docker_registry.authority, LOGIN, pause_seconds=0)
    with contextlib.closing(RemoteRegistry(settings)) as remote:
        assert code_of(lambda: put(remote, "team/x", b"x")) == Code.REGISTRY_UNREACHABLE


def test_a_wrong_password_is_refused_by_the_token_service(served: Served) -> None:
    authority = served.url.removeprefix("http://")
    settings = RemoteSettings(authority, Login("admin", "wrong"), plain_http=True)
    with contextlib.closing(RemoteRegistry(settings)) as remote:
        assert code_of(lambda: put(remote, "team/x", b"x")) == Code.REGISTRY_REFUSED


def test_what_the_account_may_not_do_is_refused(served: Served) -> None:
    authority = served.url.removeprefix("http://")
    settings = RemoteSettings(authority, Login("reader", "reader-secret"), plain_http=True)
    with contextlib.closing(RemoteRegistry(settings)) as remote:
        assert code_of(lambda: put(remote, "team/app", b"x")) == Code.REGISTRY_REFUSED


def test_nobody_listening_is_said_to_be_unreachable() -> None:
    settings = RemoteSettings(f"127.0.0.1:{free_port()}", plain_http=True, pause_seconds=0)
    with contextlib.closing(RemoteRegistry(settings)) as remote:
        unreachable = code_of(lambda: remote.has_blob("team/x", digest_of(b"x")))

    assert unreachable == Code.REGISTRY_UNREACHABLE


def test_altered_bytes_are_noticed_while_reading(served: Served) -> None:
    data = b"genuine bytes"
    authority = served.url.removeprefix("http://")
    settings = RemoteSettings(authority, LOGIN, plain_http=True)
    with contextlib.closing(RemoteRegistry(settings)) as remote:
        digest = put(remote, "team/altered", data)
        path = served.blobs.path(digest)
        path.chmod(0o644)
        path.write_bytes(b"altered bytes")
        with remote.get_blob("team/altered", digest) as file:
            assert code_of(file.read) == Code.DIGEST_MISMATCH


# ---- other people's programs ---------------------------------------------------------------------


@pytest.fixture
def skopeo(tmp_path: Path) -> Callable[..., str]:
    program = shutil.which("skopeo")
    require("registry", program is not None, "skopeo is not on PATH")

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [str(program), "--insecure-policy", *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def _layout(folder: Path) -> Path:
    """Write an image as skopeo reads it from a folder, and return the folder."""
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(b"layer")]},
        }
    ).encode()
    manifest = manifest_of(config, b"layer")
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for data in (config, b"layer", manifest):
        (blobs / digest_of(data).removeprefix("sha256:")).write_bytes(data)
    entry = {"mediaType": OCI_MANIFEST, "digest": digest_of(manifest), "size": len(manifest)}
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return folder


@pytest.mark.registry
def test_skopeo_pushes_pulls_lists_and_deletes(
    served: Served, skopeo: Callable[..., str], tmp_path: Path
) -> None:
    target = f"docker://{served.url.removeprefix('http://')}/team/skopeo"
    credentials, tls = "admin:admin-secret", "--tls-verify=false"
    source = f"oci:{_layout(tmp_path / 'image')}"
    for tag in ("v1", "v2"):
        skopeo(
            "copy",
            "--preserve-digests",
            "--dest-creds",
            credentials,
            "--dest-tls-verify=false",
            source,
            f"{target}:{tag}",
        )

    listed = json.loads(skopeo("list-tags", "--creds", credentials, tls, target))
    assert listed["Tags"] == ["v1", "v2"]
    back = f"oci:{tmp_path / 'back'}:v1"
    skopeo(
        "copy",
        "--preserve-digests",
        "--src-creds",
        credentials,
        "--src-tls-verify=false",
        "--dest-oci-accept-uncompressed-layers",
        f"{target}:v1",
        back,
    )
    pulled = {path.name for path in (tmp_path / "back" / "blobs" / "sha256").iterdir()}
    assert digest_of(b"layer").removeprefix("sha256:") in pulled
    skopeo("delete", "--creds", credentials, tls, f"{target}:v1")
    with served.client() as client:
        assert client.get("/v2/team/skopeo/manifests/v1").status_code == 404


@pytest.mark.registry
def test_skopeo_with_a_minted_token_pulls_and_cannot_push(
    served: Served, skopeo: Callable[..., str], tmp_path: Path
) -> None:
    target = f"docker://{served.url.removeprefix('http://')}/team/minted:v1"
    source = f"oci:{_layout(tmp_path / 'image')}"
    skopeo("copy", "--dest-creds", "admin:admin-secret", "--dest-tls-verify=false", source, target)
    token, _ = served.tokens.mint("device:d1", ["team/minted"])

    skopeo("inspect", "--raw", "--registry-token", token, "--tls-verify=false", target)
    with pytest.raises(AssertionError, match=r"(?i)unauthorized|denied|authentication"):
        skopeo(
            "copy", "--dest-registry-token", token, "--dest-tls-verify=false", source, f"{target}x"
        )
