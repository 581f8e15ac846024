"""Device profiles: every field a profile must have, and what it may not say."""

from __future__ import annotations

from typing import Any

import pytest
import strategies
from hypothesis import given

from protocol.errors import Code, InvalidError
from protocol.profile import Accelerator, Profile, read_profile

BOARD: dict[str, Any] = {
    "name": "raspberry-pi-4",
    "description": "a small board",
    "architecture": "arm64",
    "memoryMib": 1024,
    "runtimes": ["docker", "process"],
    "engines": ["onnxruntime"],
    "support": "simulated",
}


def test_reads_a_profile() -> None:
    card = {"kind": "gpu", "name": "T4", "memoryMib": 16384}

    profile = read_profile({**BOARD, "accelerators": [card]}, source="pi.yaml")

    assert profile == Profile(
        name="raspberry-pi-4",
        description="a small board",
        architecture="arm64",
        memory_mib=1024,
        runtimes=["docker", "process"],
        engines=["onnxruntime"],
        support="simulated",
        accelerators=[Accelerator("gpu", "T4", 16384)],
    )


@pytest.mark.parametrize("field", sorted(BOARD))
def test_every_field_is_required(field: str) -> None:
    document = {key: value for key, value in BOARD.items() if key != field}

    with pytest.raises(InvalidError, match=f"missing required field `{field}`") as caught:
        read_profile(document, source="pi.yaml")
    assert caught.value.code is Code.PROFILE_INVALID


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "Pi"),
        ("name", "pi\n"),
        ("name", "-pi"),
        ("name", "p" * 64),
        ("architecture", "x86_64"),
        ("memoryMib", 63),
        ("memoryMib", "1024"),
        ("runtimes", []),
        ("runtimes", ["podman"]),
        ("engines", []),
        ("engines", ["tensorrt"]),
        ("support", "maybe"),
        ("accelerators", [{"kind": "abacus", "name": "a"}]),
        ("accelerators", [{"kind": "gpu", "name": "a", "memoryMib": -1}]),
        ("accelerators", [{"kind": "gpu", "name": "a", "speed": 1}]),
        ("colour", "red"),
        (7, "seven"),
    ],
)
def test_refuses_and_names_the_source(field: Any, value: Any) -> None:
    with pytest.raises(InvalidError, match=r"profile 'pi\.yaml' is not valid"):
        read_profile({**BOARD, field: value}, source="pi.yaml")


@given(strategies.json_values)
def test_refuses_any_other_document(document: Any) -> None:
    with pytest.raises(InvalidError):
        read_profile(document, source="pi.yaml")
