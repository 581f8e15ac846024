"""Whether a container engine answers on this machine."""

from __future__ import annotations

import socket

from hub.settings import docker_host

_SECONDS = 3.0


def answers() -> bool:
    """Ask the engine at the usual address whether it is there."""
    scheme, _, path = docker_host().partition("://")
    if scheme != "unix":
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as engine:
        engine.settimeout(_SECONDS)
        try:
            engine.connect(path)
            engine.sendall(b"GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n")
            return b" 200 " in engine.recv(64)
        except OSError:
            return False
