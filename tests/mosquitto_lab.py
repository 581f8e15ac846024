"""A real Mosquitto with certificates, and a client that plays the hub behind it."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paho.mqtt import client as paho
from requirements_gate import require
from tls_lab import Authority, key_pem

from protocol.ids import DeviceId
from protocol.topics import DownKind, UpKind, all_up_filter, down_topic, parse_up

LIMIT_SECONDS = 10.0
PACKET_LIMIT = 3_000_000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """Devices come by TLS with certificates; the hub comes by a plain port on loopback."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
        require("broker", program is not None, "no 'mosquitto' on PATH")
        assert program is not None
        self.port, self.hub_port = free_port(), free_port()
        self._command = [program, "-c", str(folder / "mosquitto.conf")]
        (folder / "roots.pem").write_text(authority.pem)
        (folder / "server.pem").write_text(authority.issue("hub"))
        (folder / "server.key").write_text(key_pem())
        (folder / "mosquitto.conf").write_text(f"""
per_listener_settings true
user root
max_packet_size {PACKET_LIMIT}
max_queued_messages 0
listener {self.port} 127.0.0.1
cafile {folder}/roots.pem
certfile {folder}/server.pem
keyfile {folder}/server.key
require_certificate true
use_identity_as_username true
listener {self.hub_port} 127.0.0.1
allow_anonymous true
""")
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + LIMIT_SECONDS
        while not self._answers():
            assert self._process.poll() is None, "mosquitto ended at once"
            assert time.monotonic() < deadline, "mosquitto does not listen"
            time.sleep(0.02)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(LIMIT_SECONDS)

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.hub_port), timeout=1).close()
        except OSError:
            return False
        return True


class HubClient:
    """Hears everything devices say, in the loop's thread, and speaks to them."""

    def __init__(self, port: int, heard: Callable[[DeviceId, UpKind, bytes], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._heard = heard
        self._subscribed = asyncio.Event()
        arguments: dict[str, Any] = {"client_id": f"hub-{id(self)}", "protocol": paho.MQTTv5}
        if hasattr(paho, "CallbackAPIVersion"):
            arguments["callback_api_version"] = paho.CallbackAPIVersion.VERSION2
        self._client = paho.Client(**arguments)
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: self._loop.call_soon_threadsafe(self._subscribed.set)
        self._client.connect("127.0.0.1", port)
        self._client.subscribe(all_up_filter(), qos=1)
        self._client.loop_start()

    async def ready(self) -> None:
        async with asyncio.timeout(LIMIT_SECONDS):
            await self._subscribed.wait()

    def send(self, device: DeviceId, kind: DownKind, body: bytes) -> None:
        self._client.publish(down_topic(device, kind), body, qos=1)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, *arguments: Any) -> None:
        device, kind = parse_up(arguments[2].topic)
        self._loop.call_soon_threadsafe(self._heard, device, kind, bytes(arguments[2].payload))
