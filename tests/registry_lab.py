"""The hub's registry, serving on loopback, with three accounts."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn
from fastapi import FastAPI

from hub.adapters.blobs import DiskBlobs
from hub.adapters.clock import SystemClock
from hub.adapters.memory import MemoryStore
from hub.api.registry import registry_router
from hub.core.registry_access import Access
from hub.services.registry import Registry
from hub.services.registry_tokens import RegistryTokens
from protocol.errors import Code, DeniedError

ACCOUNTS = {
    ("admin", "admin-secret"): Access("admin", push=("*",)),
    ("reader", "reader-secret"): Access("reader", pull=("team/app",)),
    ("other", "other-secret"): Access("other", push=("other/*",)),
}


class Accounts:
    async def authenticate(self, username: str, password: str) -> Access:
        try:
            return ACCOUNTS[username, password]
        except KeyError:
            raise DeniedError("wrong name or password", code=Code.TOKEN_INVALID) from None


@dataclass
class Served:
    url: str
    tokens: RegistryTokens
    registry: Registry
    blobs: DiskBlobs

    def client(self, user: str = "admin") -> httpx.Client:
        return httpx.Client(base_url=self.url, auth=(user, f"{user}-secret"), timeout=10)

    def bearer(self, token: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=10)


@contextlib.contextmanager
def serve(app: FastAPI) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="warning", ws="none", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


@contextlib.contextmanager
def serve_registry(root: Path) -> Iterator[Served]:
    """Serve an empty registry that keeps its blobs in `root`."""
    clock, store, blobs = SystemClock(), MemoryStore(), DiskBlobs(root)
    registry, tokens = Registry(store, blobs, clock), RegistryTokens(b"k" * 32, clock)
    app = FastAPI()
    app.include_router(registry_router(registry, tokens, Accounts()))
    with serve(app) as url:
        yield Served(url, tokens, registry, blobs)
