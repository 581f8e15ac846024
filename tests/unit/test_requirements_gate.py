"""What must be there cannot be skipped: neither by a fixture nor past it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from requirements_gate import VARIABLE, require, required_components

TESTS = Path(__file__).resolve().parent.parent
ASKS = """
from requirements_gate import require
def test_asks(): require("docker", {available}, "no engine answers")
"""
SKIPS = """
import pytest
@pytest.mark.docker
def test_skips(): pytest.skip("just so")
@pytest.mark.registry
def test_passes(): pass
"""
SKIPS_ALL = """
import pytest
pytest.skip("just so", allow_module_level=True)
"""


def run(folder: Path, source: str, *, required: str) -> tuple[int, str]:
    for name in ("conftest.py", "requirements_gate.py"):
        shutil.copy(TESTS / name, folder)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n  docker: d\n  registry: r\n")
    (folder / "test_it.py").write_text(source + "\ndef test_other(): pass\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=folder,
        env={**os.environ, VARIABLE: required},
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("source", "required", "code", "says"),
    [
        (ASKS.format(available=True), "docker", 0, "2 passed"),
        (ASKS.format(available=False), "", 0, "1 passed, 1 skipped"),
        (ASKS.format(available=False), "docker", 1, "asks for 'docker': no engine answers"),
        (SKIPS, "", 0, "2 passed, 1 skipped"),
        (SKIPS, "registry", 0, "2 passed, 1 skipped"),
        (SKIPS, "registry, docker", 1, "test_skips (docker)"),
        (SKIPS_ALL, "docker", 5, "the whole file"),
        (SKIPS, "dokcer", 4, "names ['dokcer']"),
    ],
    ids=["there", "laptop", "missing", "skip", "other", "skip required", "file", "misspelt"],
)
def test_a_run(tmp_path: Path, source: str, required: str, code: int, says: str) -> None:
    ended, text = run(tmp_path, source, required=required)

    assert says in text
    assert ended == code


def test_reads_names_between_commas() -> None:
    assert required_components({VARIABLE: "docker, broker,"}) == {"docker", "broker"}
    assert required_components({}) == frozenset()


def test_a_misspelt_component_is_our_mistake() -> None:
    with pytest.raises(ValueError, match="'dokcer' is not one of"):
        require("dokcer", available=True, why="")
