"""The image store and its puller against a real registry."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from oci_fixture import BEARER, Layer, OciRegistry, make_tar, python_image

from agent.adapters.images.client import PullPolicy, RegistryClient
from agent.adapters.images.documents import ImageConfig, host_architecture
from agent.adapters.images.puller import ImagePuller
from agent.adapters.images.store import ImageStore
from agent.adapters.images.unpack import Quota
from protocol.errors import Code, FleetError
from protocol.ids import Digest
from simulator.fakes import ManualClock


@pytest.fixture
def registry() -> Iterator[OciRegistry]:
    with OciRegistry() as registry:
        yield registry


class Device:
    """A store that can be opened again, and what a pull of it cost."""

    def __init__(self, registry: OciRegistry, root: Path) -> None:
        self.registry = registry
        self.root = root
        self.store = ImageStore(root)

    def restart(self) -> None:
        self.store = ImageStore(self.root)

    def pull(self, digest: Digest) -> int:
        async def scenario() -> int:
            resolved = await puller.resolve(self.registry.ref(digest), BEARER)
            await puller.complete(resolved, accept)
            return resolved.source.meter.bytes_received

        client = RegistryClient(
            ManualClock(), ssl_context=self.registry.trust(), policy=PullPolicy(attempts=2)
        )
        puller = ImagePuller(client, self.store, architecture=host_architecture())
        try:
            return asyncio.run(scenario())
        finally:
            client.close()

    def fails(self, digest: Digest) -> Code:
        with pytest.raises(FleetError) as caught:
            self.pull(digest)
        return caught.value.code

    def layers(self) -> int:
        return len(list((self.root / "layers").iterdir()))

    def files(self, part: str) -> list[Path]:
        return sorted(path for path in (self.root / part).rglob("*") if path.is_file())


def accept(_config: ImageConfig) -> None:
    """Every image runs here."""


@pytest.fixture
def device(registry: OciRegistry, tmp_path: Path) -> Device:
    return Device(registry, tmp_path / "images")


def test_a_base_layer_is_neither_fetched_nor_unpacked(
    registry: OciRegistry, device: Device
) -> None:
    digest = python_image(registry)
    (base,) = [d for d, (kind, _) in registry.content.items() if kind.endswith("+gzip")][:1]

    device.pull(digest)

    root = device.store.rootfs(digest)
    assert (root / "app/server.py").exists()
    assert not (root / "bin/never-fetched").exists()
    assert registry.blob_requests(base) == []


def test_a_new_version_costs_only_its_own_layer(registry: OciRegistry, device: Device) -> None:
    first = python_image(registry, version="1", size=100_000)
    second = python_image(registry, version="2", size=100_000)

    device.pull(first)
    before = len(registry.requests)
    received = device.pull(second)

    blobs = [path for path, _, _ in registry.requests[before:] if "/blobs/" in path]
    assert 100_000 < received < 115_000
    assert len(blobs) == 2  # the configuration and the model
    shared = [device.store.rootfs(digest) / "app/server.py" for digest in (first, second)]
    assert shared[0].samefile(shared[1])


def test_an_index_gives_the_image_of_this_machine(registry: OciRegistry, device: Device) -> None:
    child = python_image(registry)
    other = registry.put_image([], {}, architecture="made-up")
    index = registry.put_index({"made-up": other, host_architecture(): child})

    device.pull(index)

    assert device.store.images() == {index}
    assert (device.store.rootfs(index) / "app/server.py").exists()


@pytest.mark.parametrize("with_index", [True, False])
def test_an_image_for_another_machine_costs_no_layers(
    registry: OciRegistry, device: Device, *, with_index: bool
) -> None:
    layer = Layer(make_tar({"a": b"x"}))
    digest = registry.put_image([layer], {}, architecture="made-up")
    if with_index:
        digest = registry.put_index({"made-up": digest})

    assert device.fails(digest) is Code.IMAGE_UNSUITABLE
    assert device.files("layers") == device.files("rootfs") == []


def test_an_index_of_indexes_is_refused(registry: OciRegistry, device: Device) -> None:
    inner = registry.put_index({host_architecture(): python_image(registry)})
    outer = registry.put_index({host_architecture(): inner})

    assert device.fails(outer) is Code.IMAGE_UNSUITABLE


def test_a_layer_that_climbs_out_is_refused_and_nothing_is_left(
    registry: OciRegistry, device: Device, tmp_path: Path
) -> None:
    digest = registry.put_image([Layer(make_tar({"../../../escape": b"x"}))], {})

    assert device.fails(digest) is Code.IMAGE_UNSUITABLE
    assert device.store.images() == frozenset()
    assert device.files("layers") == device.files("rootfs") == device.files("partial") == []
    assert not list(tmp_path.rglob("escape"))


def test_a_layer_beyond_the_quota_is_refused(registry: OciRegistry, device: Device) -> None:
    device.store = ImageStore(device.root, quota=Quota(bytes=1000, entries=10))
    digest = registry.put_image([Layer(make_tar({"big": bytes(500_000)}))], {})

    assert device.fails(digest) is Code.IMAGE_UNSUITABLE


def test_an_image_larger_than_the_disk_is_refused_before_it_is_fetched(
    registry: OciRegistry, device: Device
) -> None:
    layer = registry.put_layer(Layer(make_tar({"a": b"x"}))) | {"size": 2**45}
    config = registry.put_json("c", {"architecture": host_architecture(), "os": "linux"})
    manifest = {"config": config, "layers": [layer]}
    digest = Digest(registry.put_json("m", manifest)["digest"])

    assert device.fails(digest) is Code.DISK_FULL
    assert registry.blob_requests(layer["digest"]) == []


def test_an_interrupted_pull_goes_on_after_a_restart(registry: OciRegistry, device: Device) -> None:
    code = Layer(make_tar({"code": b"x" * 100_000}))
    model = Layer(make_tar({"model": b"y" * 1_000_000}))
    digest = registry.put_image([code, model], {})
    registry.faults.cut_after.extend([10**9, 10**9, 400_000, 0])  # config, code, model, model

    assert device.fails(digest) is Code.IMAGE_UNAVAILABLE
    device.restart()
    assert device.layers() == 1
    received = device.pull(digest)

    assert received < 620_000
    assert device.store.images() == {digest}
    assert (device.store.rootfs(digest) / "model").stat().st_size == 1_000_000


def test_layers_that_no_sync_covered_are_not_trusted_after_a_reboot(
    registry: OciRegistry, device: Device
) -> None:
    whole, broken = python_image(registry, version="1"), python_image(registry, version="2")
    third = registry.put_image([Layer(make_tar({"new": b"x"})), Layer(make_tar({"gone": b""}))], {})
    device.pull(whole)
    del registry.content[registry.layers(third)[1]]
    assert device.fails(third) is Code.IMAGE_UNAVAILABLE
    assert device.layers() == 3
    device.restart()
    assert device.layers() == 3
    record = device.root / "images.json"

    record.write_text(record.read_text().replace('"bootId":"', '"bootId":"before-'))
    device.restart()

    assert device.layers() == 2
    assert device.store.images() == {whole}
    assert device.pull(broken) > 0


def test_a_damaged_record_means_pulling_again(registry: OciRegistry, device: Device) -> None:
    digest = python_image(registry)
    device.pull(digest)
    (device.root / "images.json").write_text("{")
    device.restart()

    assert device.store.images() == frozenset()
    assert device.pull(digest) > 0


def test_removing_keeps_what_other_images_share(registry: OciRegistry, device: Device) -> None:
    first, second = python_image(registry, version="1"), python_image(registry, version="2")
    device.pull(first)
    device.pull(second)

    assert device.store.remove(frozenset({second})) == [first]

    assert device.store.images() == {second}
    assert (device.store.rootfs(second) / "app/server.py").read_bytes()
    assert device.layers() == 2
    assert len(device.files("blobs")) == 2


def test_removing_everything_leaves_nothing(registry: OciRegistry, device: Device) -> None:
    device.pull(python_image(registry))
    device.store.remove(frozenset())

    assert [
        p for part in ("blobs", "layers", "rootfs", "partial") for p in device.files(part)
    ] == []


def test_an_image_is_described_by_its_configuration(registry: OciRegistry, device: Device) -> None:
    digest = python_image(registry)
    device.pull(digest)

    assert device.store.config(digest).python == f"3.{sys.version_info[1]}"
