"""Wheels once for all tests, a workshop for each."""

from pathlib import Path

import pytest
from packaging_lab import Workshop, make_wheel


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    make_wheel(folder, "tinyserver", "1.0", "tinydep")
    make_wheel(folder, "tinydep", "0.5")
    make_wheel(folder, "other", "2.0")
    return folder


@pytest.fixture
def workshop(tmp_path: Path, wheels: Path) -> Workshop:
    return Workshop(tmp_path, wheels)
