"""Whether a container engine answers on this machine."""

from __future__ import annotations

import httpx

from hub.settings import docker_host

_OK = 200


def answers() -> bool:
    """Ask the engine at the usual address whether it is there."""
    address = docker_host()
    if not address.startswith("unix://"):
        return False
    transport = httpx.HTTPTransport(uds=address.removeprefix("unix://"))
    try:
        with httpx.Client(transport=transport, timeout=3) as client:
            return client.get("http://engine/_ping").status_code == _OK
    except httpx.HTTPError:
        return False
