"""A real Docker Engine pushes to the hub's registry and pulls from it.

`DOCKER_HOST` names the engine. It reaches the registry over loopback, where it asks for no TLS.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import APIError, DockerException
from packaging_lab import Workshop, make_wheel
from registry_lab import Served, serve_registry
from requirements_gate import require

from hub.adapters.registry.login import Login
from hub.adapters.registry.remote import RemoteRegistry, RemoteSettings
from hub.core.packaging import BuiltImage

pytestmark = pytest.mark.docker
ADMIN = {"username": "admin", "password": "admin-secret"}


@pytest.fixture
def engine() -> Iterator[docker.APIClient]:
    address = os.environ.get("DOCKER_HOST", "")
    require("docker", bool(address), "DOCKER_HOST is not set")
    client = docker.APIClient(base_url=address, version="auto", timeout=30)
    try:
        client.ping()
    except (APIError, DockerException) as error:
        require("docker", available=False, why=f"no engine answers at DOCKER_HOST: {error}")
    yield client
    client.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve_registry(tmp_path / "registry") as found:
        yield found


@pytest.fixture
def image(served: Served, tmp_path: Path) -> BuiltImage:
    """A built image no engine has seen before."""
    (tmp_path / "wheels").mkdir()
    make_wheel(tmp_path / "wheels", "tinyserver", "1.0")
    workshop = Workshop(tmp_path / "workshop", tmp_path / "wheels")
    authority = served.url.removeprefix("http://")
    remote = RemoteRegistry(
        RemoteSettings(authority, Login("admin", "admin-secret"), plain_http=True)
    )
    recipe = workshop.recipe(uuid.uuid4().bytes)
    try:
        return workshop.builder.build(recipe, remote, workshop.steps.append)
    finally:
        remote.close()


def outcome(rows: Iterator[dict[str, str]]) -> str:
    """Return the error of a pull or push, or an empty text."""
    try:
        return next((row["error"] for row in rows if "error" in row), "")
    except APIError as error:
        return str(error.explanation)


def pull(engine: docker.APIClient, reference: str, auth: dict[str, str]) -> str:
    rows = engine.pull(reference, stream=True, decode=True, auth_config=auth)
    return outcome(rows)


def test_an_engine_pulls_with_a_minted_token_only_what_it_names(
    engine: docker.APIClient, served: Served, image: BuiltImage
) -> None:
    reference = f"{served.url.removeprefix('http://')}/{image.name}@{image.digest}"
    wrong, _ = served.tokens.mint("device:d1", ["team/else"])
    right, _ = served.tokens.mint("device:d1", [image.name])

    with pytest.raises(APIError, match="denied"):
        pull(engine, reference, {"registrytoken": wrong})
    assert pull(engine, reference, {"registrytoken": right}) == ""
    try:
        found = engine.inspect_image(reference)  # type: ignore[no-untyped-call] # as its stubs have it
        assert found["Id"] == image.config_digest
    finally:
        engine.remove_image(reference, force=True)


def test_an_engine_pushes_what_the_account_may(
    engine: docker.APIClient, served: Served, image: BuiltImage
) -> None:
    authority = served.url.removeprefix("http://")
    source, target = f"{authority}/{image.name}:1", f"{authority}/team/copy:1"
    assert pull(engine, source, ADMIN) == ""
    engine.tag(source, f"{authority}/team/copy", "1")
    try:
        reader = {"username": "reader", "password": "reader-secret"}
        assert "denied" in outcome(
            engine.push(target, stream=True, decode=True, auth_config=reader)
        )
        assert outcome(engine.push(target, stream=True, decode=True, auth_config=ADMIN)) == ""
    finally:
        engine.remove_image(source, force=True)
        engine.remove_image(target, force=True)
    with served.client() as client:
        assert client.get("/v2/team/copy/manifests/1").status_code == 200
