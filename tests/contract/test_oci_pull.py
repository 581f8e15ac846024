from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from oci_fixture import BEARER, LAYER, TOKEN, OciRegistry

from agent.adapters.images.client import Meter, PullPolicy, RegistryClient, Source
from agent.adapters.images.documents import Descriptor
from protocol.errors import Code, FleetError
from protocol.ids import Digest, ImageRef, digest_of
from protocol.messages import Credential
from simulator.fakes import ManualClock

BLOB = hashlib.sha256(b"seed").digest() * 40_000  # 1.28 MB
NOWHERE = Digest("sha256:" + "0" * 64)


@pytest.fixture
def registry() -> Iterator[OciRegistry]:
    with OciRegistry() as registry:
        yield registry


class World:
    def __init__(self, registry: OciRegistry, credential: Credential = BEARER) -> None:
        self.registry = registry
        self.clock = ManualClock()
        self.client = RegistryClient(
            self.clock, ssl_context=registry.trust(), policy=PullPolicy(stall_seconds=0.3)
        )
        self.source = Source(registry.ref(NOWHERE), credential, Meter())
        digest = registry.put(LAYER, BLOB)["digest"]
        self.blob = Descriptor(media_type=LAYER, digest=digest, size=len(BLOB))

    def fetch(self, path: Path) -> None:
        try:
            asyncio.run(self.client.blob(self.source, self.blob, path))
        finally:
            self.client.close()

    def fails(self, path: Path) -> FleetError:
        with pytest.raises(FleetError) as caught:
            self.fetch(path)
        return caught.value


def test_a_blob_arrives_whole_and_every_byte_is_counted(
    registry: OciRegistry, tmp_path: Path
) -> None:
    world = World(registry)

    world.fetch(tmp_path / "blob")

    assert (tmp_path / "blob").read_bytes() == BLOB
    assert world.source.meter.bytes_received == len(BLOB)


def test_a_cut_download_goes_on_where_it_was(registry: OciRegistry, tmp_path: Path) -> None:
    world = World(registry)
    registry.faults.cut_after.extend([500_000, 300_000])

    world.fetch(tmp_path / "blob")

    assert (tmp_path / "blob").read_bytes() == BLOB
    assert registry.blob_requests(world.blob.digest) == ["", "bytes=500000-", "bytes=800000-"]
    assert world.source.meter.bytes_received == len(BLOB)


def test_a_download_goes_on_after_the_agent_died(registry: OciRegistry, tmp_path: Path) -> None:
    world = World(registry)
    (tmp_path / "blob").write_bytes(BLOB[:700_000])

    world.fetch(tmp_path / "blob")

    assert (tmp_path / "blob").read_bytes() == BLOB
    assert registry.blob_requests(world.blob.digest) == ["bytes=700000-"]


def test_a_damaged_beginning_is_fetched_again(registry: OciRegistry, tmp_path: Path) -> None:
    world = World(registry)
    (tmp_path / "blob").write_bytes(bytes(700_000))

    world.fetch(tmp_path / "blob")

    assert (tmp_path / "blob").read_bytes() == BLOB
    assert registry.blob_requests(world.blob.digest) == ["bytes=700000-", ""]


def test_a_whole_file_is_not_fetched(registry: OciRegistry, tmp_path: Path) -> None:
    world = World(registry)
    (tmp_path / "blob").write_bytes(BLOB)

    world.fetch(tmp_path / "blob")

    assert registry.requests == []


def test_a_registry_without_ranges_starts_over(registry: OciRegistry, tmp_path: Path) -> None:
    world = World(registry)
    registry.faults.cut_after.append(500_000)
    registry.faults.no_ranges = True

    world.fetch(tmp_path / "blob")

    assert (tmp_path / "blob").read_bytes() == BLOB


def test_an_altered_blob_is_refused_and_removed(registry: OciRegistry, tmp_path: Path) -> None:
    world = World(registry)
    registry.faults.altered.add(world.blob.digest)

    error = world.fails(tmp_path / "blob")

    assert error.code is Code.DIGEST_MISMATCH
    assert not (tmp_path / "blob").exists()


def test_a_blob_longer_than_announced_is_refused(registry: OciRegistry, tmp_path: Path) -> None:
    world = World(registry)
    world.blob = Descriptor(LAYER, world.blob.digest, len(BLOB) - 1)

    assert world.fails(tmp_path / "blob").code is Code.DIGEST_MISMATCH


def test_cuts_without_progress_end_after_growing_waits(
    registry: OciRegistry, tmp_path: Path
) -> None:
    world = World(registry)
    registry.faults.cut_after.extend([10] * 6)

    error = world.fails(tmp_path / "blob")

    assert (error.code, error.retryable) == (Code.IMAGE_UNAVAILABLE, True)
    assert world.clock.slept == [0.5, 1.0, 2.0, 4.0, 8.0]


def test_a_stalled_download_is_given_up(registry: OciRegistry, tmp_path: Path) -> None:
    world = World(registry)
    world.client = RegistryClient(
        world.clock,
        ssl_context=registry.trust(),
        policy=PullPolicy(stall_seconds=0.1, attempts=2),
    )
    registry.faults.stall = True

    assert world.fails(tmp_path / "blob").code is Code.IMAGE_UNAVAILABLE


def test_a_cancelled_download_ends_at_once_and_goes_on_later(
    registry: OciRegistry, tmp_path: Path
) -> None:
    world = World(registry)
    world.client = RegistryClient(
        world.clock, ssl_context=registry.trust(), policy=PullPolicy(stall_seconds=60)
    )
    registry.faults.stall = True

    async def cancel() -> None:
        work = asyncio.create_task(world.client.blob(world.source, world.blob, tmp_path / "blob"))
        for _ in range(1000):
            if world.source.meter.bytes_received == 10:
                break
            await asyncio.sleep(0.01)
        work.cancel()
        await asyncio.wait({work})
        assert work.cancelled()

    asyncio.run(cancel())  # ends only when the thread has
    registry.faults.stall = False
    registry.released.set()
    world.fetch(tmp_path / "blob")

    assert (tmp_path / "blob").read_bytes() == BLOB


def test_a_busy_registry_is_asked_again(registry: OciRegistry, tmp_path: Path) -> None:
    world = World(registry)
    registry.faults.statuses.extend([503, 429])

    world.fetch(tmp_path / "blob")

    assert (tmp_path / "blob").read_bytes() == BLOB


def test_a_missing_blob_is_not_asked_for_twice(registry: OciRegistry, tmp_path: Path) -> None:
    world = World(registry)
    del registry.content[world.blob.digest]

    assert world.fails(tmp_path / "blob").code is Code.IMAGE_UNAVAILABLE
    assert len(registry.requests) == 1


def test_a_token_for_something_else_is_refused(registry: OciRegistry, tmp_path: Path) -> None:
    world = World(registry, Credential("bearer", "another"))

    assert world.fails(tmp_path / "blob").code is Code.REGISTRY_REFUSED
    assert len(registry.requests) == 1


@pytest.mark.parametrize("status", [403, 400])
def test_a_refusal_is_final(registry: OciRegistry, tmp_path: Path, status: int) -> None:
    world = World(registry)
    registry.faults.statuses.append(status)

    assert world.fails(tmp_path / "blob").code is Code.REGISTRY_REFUSED


def test_a_password_is_traded_for_a_token_once(registry: OciRegistry, tmp_path: Path) -> None:
    registry.users["device"] = "secret"
    world = World(registry, Credential("basic", username="device", password="secret"))
    registry.faults.cut_after.append(500_000)

    world.fetch(tmp_path / "blob")

    assert [path for path, _, _ in registry.requests].count("/token") == 1
    assert registry.requests[-1][2] == "Bearer token-for-repository:demo/digits:pull"


def test_a_wrong_password_is_refused(registry: OciRegistry, tmp_path: Path) -> None:
    registry.users["device"] = "secret"
    world = World(registry, Credential("basic", username="device", password="guess"))

    assert world.fails(tmp_path / "blob").code is Code.REGISTRY_REFUSED


def test_an_open_registry_hands_out_anonymous_tokens(registry: OciRegistry, tmp_path: Path) -> None:
    world = World(registry, Credential("anonymous"))

    world.fetch(tmp_path / "blob")

    assert (tmp_path / "blob").read_bytes() == BLOB


def test_a_manifest_is_verified(registry: OciRegistry) -> None:
    world = World(registry)
    raw = json.dumps({"config": {}, "layers": []}).encode()
    registry.content[digest_of(raw)] = (LAYER, raw)
    registry.faults.altered.add(digest_of(raw))

    async def fetch() -> None:
        with pytest.raises(FleetError) as caught:
            await world.client.manifest(world.source, digest_of(raw))
        assert caught.value.code is Code.DIGEST_MISMATCH

    asyncio.run(fetch())
    world.client.close()


def test_a_registry_nobody_vouches_for_is_not_used(registry: OciRegistry, tmp_path: Path) -> None:
    with OciRegistry() as other:
        world = World(registry)
        world.client = RegistryClient(world.clock, ssl_context=other.trust())

        error = world.fails(tmp_path / "blob")

    assert error.code is Code.IMAGE_UNAVAILABLE
    assert "certificate" in str(error)
    assert world.clock.slept == []


def test_an_authority_can_stand_behind_another_address(
    registry: OciRegistry, tmp_path: Path
) -> None:
    world = World(registry)
    world.client = RegistryClient(
        world.clock,
        ssl_context=registry.trust(),
        authority_map={"hub.example:8443": f"https://{registry.authority}"},
    )
    image = ImageRef("hub.example:8443", "demo/digits", None, NOWHERE)
    world.source = Source(image, BEARER, Meter())

    world.fetch(tmp_path / "blob")

    assert (tmp_path / "blob").read_bytes() == BLOB


def test_a_registry_that_is_down_is_retried_later(registry: OciRegistry, tmp_path: Path) -> None:
    world = World(registry)
    image = ImageRef("127.0.0.1:9", "demo/digits", None, NOWHERE)
    world.source = Source(image, Credential("bearer", TOKEN), Meter())

    assert world.fails(tmp_path / "blob").code is Code.IMAGE_UNAVAILABLE
    assert len(world.clock.slept) == 5
