"""What somebody who holds a device's identity can try at a real hub."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import httpx

from agent.adapters import identity as identities
from agent.adapters.clock import SystemClock
from agent.adapters.hub_api import HubApiClient
from agent.adapters.identity import ContextFactory
from agent.core.ports import Identity
from protocol.errors import FleetError
from protocol.ids import parse_image_ref
from protocol.messages import Credential
from protocol.mqtt import Connack, Connect, Decoder, Version, encode


class DeviceSide:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.identity: Identity
        self.make_context: ContextFactory
        self.identity, self.make_context = identities.load_identity(home)
        self._api = HubApiClient(self.identity.hub_url, self.make_context, SystemClock())

    def credential(self, image: str) -> Credential:
        return asyncio.run(self._api.credential(parse_image_ref(image)))

    def renew(self) -> Identity:
        return asyncio.run(identities.renew(self.home, self.identity, self._api))

    def status_of(self, path: str, body: dict[str, Any]) -> tuple[int, str]:
        """POST over the device's certificate; return the status and our error code."""
        url = self.identity.hub_url + path
        with httpx.Client(verify=self.make_context(), trust_env=False) as http:
            answer = http.post(url, json=body)
        return answer.status_code, str(answer.json().get("code", ""))

    def connack(self) -> int | None:
        """Return the hub's answer to our MQTT CONNECT: 0 for welcome, None for a closed door."""
        endpoint = self.identity.enrolled.mqtt
        decoder = Decoder(Version.V5)
        try:
            with (
                socket.create_connection((endpoint.host, endpoint.port), 10) as plain,
                self.make_context().wrap_socket(plain, server_hostname=endpoint.host) as tls,
            ):
                tls.sendall(encode(Connect(self.identity.device, keep_alive=30), Version.V5))
                while data := tls.recv(4096):
                    decoder.feed(data)
                    packet = decoder.next_packet()
                    if packet is not None:
                        assert isinstance(packet, Connack)
                        return packet.reason
        except OSError:
            return None
        return None


def refusal(attempt: Any) -> tuple[str, int]:
    """Return code and HTTP status of the error an attempt ends with."""
    try:
        attempt()
    except FleetError as error:
        return str(error.code), error.entry.http_status
    return "none", 0
