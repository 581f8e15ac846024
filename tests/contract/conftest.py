from __future__ import annotations

from foreign_registry import docker_registry  # noqa: F401 - a fixture
