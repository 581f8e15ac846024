"""One registry per file of tests, and a client of its administrator."""

from collections.abc import Iterator

import httpx
import pytest
from registry_lab import Served, serve_registry


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve_registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def http(served: Served) -> Iterator[httpx.Client]:
    with served.client() as client:
        yield client
