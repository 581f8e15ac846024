"""A device's certificate, renewed at a real hub."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from device_side import DeviceSide, refusal
from hub_lab import csr
from plant import Plant, plant, wait_for

from agent.adapters.clock import SystemClock
from agent.adapters.identity import certificate_validity
from agent.adapters.mqtt.link import LinkOptions
from agent.adapters.mqtt.transport import PahoTransport
from agent.core.backoff import Backoff
from hub.adapters.pki import DiskAuthority
from hub.adapters.sql.store import open_store
from hub.demo.digits import Digits
from protocol.ids import DeviceId
from protocol.messages import MqttEndpoint
from simulator.fakes import ManualClock


@pytest.fixture
def works(tmp_path: Path, digits: Digits) -> Iterator[Plant]:
    with plant(tmp_path, digits) as made:
        made.start_hub()
        made.enroll("press-1")
        yield made


def leaf(chain_pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(chain_pem.encode())


def make_older(works: Plant, age: timedelta) -> None:
    """Give press-1 the certificate it would have if it had enrolled so long ago."""
    device, clock = DeviceId("press-1"), ManualClock(datetime.now(UTC) - age)
    url = f"sqlite:///{works.folder / 'hub' / 'hub.db'}"
    with closing(open_store(url, clock)) as store, store.begin() as work:
        found = work.devices.get(device)
        assert found is not None
        work.devices.put(replace(found, enrolled_at=clock.now()))
        work.commit()
    path = works.home("press-1") / "identity" / "credential.pem"
    key = load_pem_private_key(path.read_bytes(), None)
    authority = DiskAuthority(works.folder / "hub" / "keys", clock)
    key_pem, _, _ = path.read_text().partition("-----BEGIN CERTIFICATE")
    path.write_text(key_pem + authority.issue(csr(key), device))


@contextmanager
def doorman(works: Plant) -> Iterator[tuple[int, list[int]]]:
    """Yield a port with the hub's own TLS, and the serials of the certificates shown there."""
    keys, serials = works.folder / "hub" / "keys", list[int]()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys / "server.pem", keys / "server.key")
    context.load_verify_locations(keys / "root.pem")
    context.verify_mode = ssl.CERT_REQUIRED

    def attend(listener: socket.socket) -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            with plain, context.wrap_socket(plain, server_side=True) as tls:
                shown = tls.getpeercert(binary_form=True)
                assert shown is not None
                serials.append(x509.load_der_x509_certificate(shown).serial_number)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=attend, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1], serials
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


@pytest.mark.e2e
def test_a_renewed_certificate_is_new_and_everything_goes_on_with_it(works: Plant) -> None:
    device = DeviceSide(works.home("press-1"))
    before = (works.home("press-1") / "identity" / "credential.pem").read_bytes()

    renewed = device.renew()

    after = (works.home("press-1") / "identity" / "credential.pem").read_bytes()
    old, new = leaf(device.identity.enrolled.certificate), leaf(renewed.enrolled.certificate)
    assert old.serial_number != new.serial_number
    assert old.public_key() != new.public_key()
    assert before != after
    assert certificate_validity(renewed.enrolled.certificate) >= certificate_validity(
        device.identity.enrolled.certificate
    )
    again = DeviceSide(works.home("press-1"))
    assert leaf(again.identity.enrolled.certificate) == new
    assert again.connack() == 0
    assert refusal(again.renew) == ("none", 0)


@pytest.mark.e2e
def test_the_next_connection_shows_the_renewed_certificate(works: Plant) -> None:
    device = DeviceSide(works.home("press-1"))
    old = leaf(device.identity.enrolled.certificate).serial_number

    async def connect_and_renew(port: int, serials: list[int]) -> int:
        transport = PahoTransport(
            LinkOptions(device.identity.device, MqttEndpoint("127.0.0.1", port)),
            device.make_context,
            SystemClock(),
            Random(1),  # noqa: S311 - jitter
            backoff=Backoff(first=0.05, ceiling=0.05),
        )
        running = asyncio.create_task(transport.run(lambda _event: None))
        await asyncio.to_thread(wait_for, "a connection", lambda: old in serials)
        renewed = leaf((await asyncio.to_thread(device.renew)).enrolled.certificate).serial_number
        await asyncio.to_thread(wait_for, "the new one", lambda: renewed in serials)
        running.cancel()
        return renewed

    with doorman(works) as (port, serials):
        new = asyncio.run(connect_and_renew(port, serials))

    assert old != new
    assert old not in serials[serials.index(new) :]


@pytest.mark.e2e
def test_an_agent_past_half_its_life_renews_while_it_runs(works: Plant) -> None:
    home = works.home("press-1")
    make_older(works, timedelta(days=4))
    before = DeviceSide(home).identity.enrolled.certificate
    works.start_agent("press-1")

    wait_for("the renewal", lambda: DeviceSide(home).identity.enrolled.certificate != before)
    assert "certificate.renewed" in (works.folder / "press-1.log").read_text()
