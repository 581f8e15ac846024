from __future__ import annotations

from pathlib import Path

import pytest

from hub.demo.digits import Digits, make


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    return make(tmp_path_factory.mktemp("digits") / "models")


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """A folder of its own; the name says that socket paths must stay short."""
    return tmp_path
