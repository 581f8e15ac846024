"""The line to a Docker Engine: one client, calls in threads, its exceptions as ours.

Decides what "the engine does not answer" means. Refusals that mean something more are translated
by whoever made the call, through `said`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TypeVar

import docker
from docker.errors import APIError, DockerException
from requests.exceptions import RequestException

from protocol.errors import Code, UnavailableError

_TIMEOUT_SECONDS = 60
_SAID_LIMIT = 300
_Result = TypeVar("_Result")


class DockerEngine:
    """A Docker Engine at an address, connected on first use.

    Args:
        base_url: Like `unix:///var/run/docker.sock`.
    """

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._api: docker.APIClient | None = None

    async def call(self, work: Callable[[docker.APIClient], _Result]) -> _Result:
        """Run `work` with the client in a thread.

        Raises:
            UnavailableError: `runtime-unavailable`, when the engine does not answer, or refuses
                something that `work` did not expect it to.
        """
        return await asyncio.to_thread(self._call, work)

    def close(self) -> None:
        """Close idle connections."""
        if self._api is not None:
            self._api.close()
            self._api = None

    def _call(self, work: Callable[[docker.APIClient], _Result]) -> _Result:
        try:
            if self._api is None:
                _knock(self._base_url)
                self._api = docker.APIClient(
                    base_url=self._base_url, version="auto", timeout=_TIMEOUT_SECONDS
                )
            return work(self._api)
        except APIError as error:
            raise UnavailableError(
                f"the container engine at {self._base_url!r} refused: {said(error)}",
                code=Code.RUNTIME_UNAVAILABLE,
                hint="look at the engine's log",
            ) from error
        except (RequestException, DockerException, OSError) as error:
            self.close()  # the next call knocks before it uses the client
            raise UnavailableError(
                f"the container engine at {self._base_url!r} does not answer",
                code=Code.RUNTIME_UNAVAILABLE,
                hint="start Docker, and let the agent's user talk to its socket",
            ) from error


def _knock(base_url: str) -> None:
    """Fail early when no one listens: the client would leave a socket open at every try."""
    scheme, _, path = base_url.partition("://")
    if scheme in ("unix", "http+unix"):
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(_TIMEOUT_SECONDS)
            door.connect(path if path.startswith("/") else f"/{path}")


def said(error: APIError) -> str:
    """Return the engine's own words, short, on one line."""
    return " ".join(str(error.explanation or error).split())[:_SAID_LIMIT]
