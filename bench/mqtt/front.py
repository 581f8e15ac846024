"""Measure the MQTT front: TLS connects per second, memory per device, QoS 1 messages per second.

    python -m bench.mqtt.front --devices 1000 --messages 50000

The load comes from a second process on the same machine, so trust the CPU figures of the front
before the wall-clock rates. The bus handler does nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import ssl
import sys
import tempfile
import time
from pathlib import Path
from typing import cast

import uvloop

from hub.adapters.front.endpoint import MqttFront
from protocol.ids import DeviceId
from protocol.mqtt import Connack, Connect, Decoder, Puback, Publish, Version, encode
from protocol.topics import UpKind, up_topic
from tests.mqtt_lab import Pki

WINDOW = 16
V311 = Version.V311


class Nothing:
    """A bus handler that agrees with everything."""

    async def authorize(self, device: DeviceId, certificate_der: bytes) -> None: ...
    async def connected(self, device: DeviceId) -> None: ...
    async def disconnected(self, device: DeviceId) -> None: ...
    async def message(self, device: DeviceId, kind: UpKind, body: bytes) -> None: ...


class Device(asyncio.Protocol):
    def __init__(self, name: str) -> None:
        self.name = name
        self.joined = asyncio.get_running_loop().create_future()
        self.finished = asyncio.get_running_loop().create_future()
        self._decoder = Decoder(V311)
        self._left = self._open = 0
        self._message = encode(
            Publish(up_topic(DeviceId(name), UpKind.TELEMETRY), b"x" * 200, 1, 1), V311
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(encode(Connect(self.name), V311))

    def publish(self, count: int) -> None:
        self._left, self._open = count - WINDOW, WINDOW
        self.transport.write(self._message * WINDOW)

    def data_received(self, data: bytes) -> None:
        self._decoder.feed(data)
        acknowledged = 0
        while (packet := self._decoder.next_packet()) is not None:
            if isinstance(packet, Connack):
                self.joined.set_result(packet.reason)
            acknowledged += isinstance(packet, Puback)
        self._open -= acknowledged
        more = min(acknowledged, self._left)
        self._left -= more
        self._open += more
        if more:
            self.transport.write(self._message * more)
        elif acknowledged and not self._open:
            self.finished.set_result(None)


async def load(port: int, folder: Path, devices: int, messages: int) -> None:
    loop = asyncio.get_running_loop()
    contexts = []
    for index in range(devices):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(folder / "roots.pem")
        context.load_cert_chain(folder / f"d{index}.pem", folder / f"d{index}.key")
        contexts.append(context)
    gate = asyncio.Semaphore(64)

    async def join(index: int) -> Device:
        async with gate:
            _, device = await loop.create_connection(
                lambda: Device(f"d{index}"), "127.0.0.1", port,
                ssl=contexts[index], server_hostname="localhost",
            )  # fmt: skip
            assert await device.joined == 0
            return device

    print("go", flush=True)
    fleet = await asyncio.gather(*(join(index) for index in range(devices)))
    print("joined", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    for device in fleet:
        device.publish(max(WINDOW, messages // devices))
    await asyncio.gather(*(device.finished for device in fleet))
    print("published", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)


def usage() -> tuple[float, float, float]:
    """Return wall seconds, CPU seconds and resident KiB."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4.0
    return time.monotonic(), own.ru_utime + own.ru_stime, resident


async def measure(folder: Path, devices: int, messages: int) -> None:
    pki = Pki(folder)
    for index in range(devices):
        pki.issue(f"d{index}")
    front = MqttFront(tls=pki.server, host="127.0.0.1", port=0)
    await front.start(Nothing())
    loop_name = type(asyncio.get_running_loop()).__module__
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.mqtt.front", "--load", str(front.port),
        "--folder", str(folder), "--devices", str(devices), "--messages", str(messages),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    marks = []
    for word in (b"go", b"joined", b"published"):
        assert (await child.stdout.readline()).strip() == word
        marks.append(usage())
        child.stdin.write(b"\n" * (word != b"go"))
    sent = max(WINDOW, messages // devices) * devices
    for label, count, (before, after) in (
        ("connects", devices, marks[:2]),
        ("messages", sent, marks[1:]),
    ):
        wall, cpu = after[0] - before[0], after[1] - before[1]
        print(f"{label}: {count / wall:,.0f}/s, {cpu / count * 1e6:,.1f} us CPU each")
    print(f"loop: {loop_name}")
    print(f"memory: {(marks[1][2] - marks[0][2]) / devices:,.1f} KiB per device")
    await child.wait()
    await front.stop()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], default="uvloop")
    parser.add_argument("--load", type=int)
    parser.add_argument("--folder", type=Path)
    wanted = parser.parse_args()
    factory = uvloop.new_event_loop if wanted.loop == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner, tempfile.TemporaryDirectory() as folder:
        if wanted.load:
            runner.run(load(wanted.load, wanted.folder, wanted.devices, wanted.messages))
        else:
            runner.run(measure(Path(folder), wanted.devices, wanted.messages))


if __name__ == "__main__":
    main()
