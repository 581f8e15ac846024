from __future__ import annotations

import pytest
from foreign_registry import docker_registry  # noqa: F401 - a fixture

from hub.demo.digits import Digits, make


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    return make(tmp_path_factory.mktemp("digits") / "models")
