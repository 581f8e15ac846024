"""What a test does when a real component is not there: skip on a laptop, fail where it is required.

`RIMWARD_TEST_REQUIRE` names the components that must be there, separated by commas; CI names all.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import pytest

COMPONENTS = ("docker", "broker", "registry", "postgres")
VARIABLE = "RIMWARD_TEST_REQUIRE"


def required_components(environment: Mapping[str, str] = os.environ) -> frozenset[str]:
    """Return the components that must be there; an unknown name is refused: it gates nothing."""
    names = frozenset(
        name for part in environment.get(VARIABLE, "").split(",") if (name := part.strip())
    )
    if unknown := names.difference(COMPONENTS):
        raise pytest.UsageError(
            f"{VARIABLE} names {sorted(unknown)}, the components are {list(COMPONENTS)}"
        )
    return names


def require(component: str, available: bool, why: str) -> None:  # noqa: FBT001 - reads as a sentence
    """Go on when `component` is available; else fail where it is required, and skip elsewhere.

    Args:
        component: One of COMPONENTS.
        available: What the fixture found out.
        why: What it tried, for the person who reads the outcome.
    """
    if component not in COMPONENTS:
        raise ValueError(f"{component!r} is not one of {COMPONENTS}")
    if available:
        return
    if component in required_components():
        pytest.fail(f"{VARIABLE} asks for {component!r}: {why}", pytrace=False)
    pytest.skip(f"needs {component}: {why}")
