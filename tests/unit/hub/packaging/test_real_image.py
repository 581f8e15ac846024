"""The digits image and the base, with the real dependencies, unpacked and run.

Needs a package index for uv and, for the base, apt-get on Debian.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
import uv
from packaging_lab import make_tar
from requirements_gate import required_components

import modules
import protocol
from hub.adapters.blobs import DiskBlobs
from hub.adapters.clock import SystemClock
from hub.adapters.debian.base import DebianBases
from hub.adapters.memory import MemoryStore
from hub.adapters.packaging.bases import BaseLayer
from hub.adapters.packaging.budget import Budget
from hub.adapters.packaging.builder import ImageBuilder
from hub.adapters.packaging.dependencies import Uv
from hub.adapters.registry.embedded import EmbeddedRegistry
from hub.core.packaging import Architecture, Base, BuiltImage, ModelFile, Recipe
from protocol.errors import UnavailableError
from protocol.ids import Digest

pytestmark = pytest.mark.e2e
MACHINE = Architecture.ARM64 if os.uname().machine == "aarch64" else Architecture.AMD64
WAIT_SECONDS = 30


def _folder(package: Any) -> Path:
    return Path(package.__file__).parent


def _model() -> tuple[bytes, list[list[float]], list[int]]:
    """Return a classifier of digits as ONNX, some rows, and what it must say about them."""
    from skl2onnx import to_onnx  # noqa: PLC0415 - slow, and only for this file
    from sklearn.datasets import load_digits  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    data = load_digits()
    rows = data.data.astype("float32")
    model = LogisticRegression(max_iter=20, tol=1.0).fit(rows[:500], data.target[:500])
    exported = to_onnx(model, rows[:1], options={id(model): {"zipmap": False}})
    return exported.SerializeToString(), rows[:5].tolist(), model.predict(rows[:5]).tolist()


def _unpack(raw: bytes, root: Path) -> None:
    plain = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        # Older patch releases of Python 3.11 know no filters, newer Pythons warn without one.
        known = hasattr(tarfile, "fully_trusted_filter")
        trusted: dict[str, Any] = {"filter": "fully_trusted"} if known else {}
        archive.extractall(root, **trusted)  # noqa: S202 - made a moment ago


def _unpacked(registry: EmbeddedRegistry, image: BuiltImage, root: Path) -> dict[str, str]:
    """Unpack all layers below `root` and return the environment, pointing there."""
    for layer in image.layers:
        with registry.get_blob(image.name, layer.digest) as file:
            _unpack(file.read(), root)
    with registry.get_blob(image.name, image.config_digest) as file:
        rows = json.load(file)["config"]["Env"]
    env = dict(row.split("=", 1) for row in rows)
    for key in ("PYTHONPATH", "AZUREML_MODEL_DIR", "AML_APP_ROOT"):
        env[key] = ":".join(f"{root}{part}" for part in env[key].split(":"))
    return env


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the image is for python 3.11")
def test_the_digits_image_answers(tmp_path: Path) -> None:
    content, rows, wanted = _model()
    clock, blobs, cache = SystemClock(), DiskBlobs(tmp_path / "blobs"), tmp_path / "cache"
    registry = EmbeddedRegistry("hub:5000", MemoryStore(), blobs)
    builder = ImageBuilder(
        blobs=blobs,
        cache_dir=cache,
        modules_dir=_folder(modules),
        protocol_dir=_folder(protocol),
        uv=Uv(uv.find_uv_bin(), cache / "locks"),
        bases=DebianBases(cache),
        clock=clock,
    )
    script = (_folder(modules) / "samples" / "digits" / "score.py").read_bytes()
    recipe = Recipe(
        "digits",
        "1",
        (ModelFile("digits", 1, "model.onnx", blobs.put(io.BytesIO(content))),),
        code=blobs.put(io.BytesIO(make_tar({"score.py": script}))),
        entry_script="score.py",
        architecture=MACHINE,
        base=Base.HOST,
    )
    try:
        image = builder.build(recipe, registry, lambda _step: None)
    except UnavailableError as error:
        _missing(f"needs a package index: {error}")
    root, port = tmp_path / "root", _free_port()
    env = _unpacked(registry, image, root)
    env |= {"RIMWARD_MODULE_HOST": "127.0.0.1", "RIMWARD_MODULE_PORT": str(port)}
    process = subprocess.Popen([sys.executable, "-m", "inference"], env=env, cwd=root)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            _wait_until_ready(client, process)
            answer = client.post("/score", json={"data": rows}).json()
    finally:
        process.terminate()
        process.wait(10)

    assert answer["label"] == wanted


def _wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        try:
            if client.get("/health/ready").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    pytest.fail("the server is not ready")


def _missing(why: str) -> NoReturn:
    """Skip on a laptop; where the real components are required, this belongs to them."""
    if required_components():
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


def _base(folder: Path, architecture: Architecture) -> BaseLayer:
    if shutil.which("apt-get") is None or "debian" not in platform.freedesktop_os_release()["ID"]:
        _missing("needs apt-get on Debian")
    clock = SystemClock()
    budget = Budget(clock, clock.monotonic() + 90, threading.Event())
    return DebianBases(folder).obtain(architecture, budget, lambda _step: None)


def test_the_base_has_a_python_that_works(tmp_path: Path) -> None:
    base = _base(tmp_path / "cache", MACHINE)
    root = tmp_path / "root"
    _unpack(base.path.read_bytes(), root)
    loader = next((root / "usr").glob("lib*/ld-linux-*"), None) or next(
        (root / "usr" / "lib").glob("*/ld-linux-*")
    )
    libraries = next((root / "usr" / "lib").glob("*-linux-gnu"))
    code = (
        "import asyncio, bz2, ctypes, curses, lzma, multiprocessing, readline, sqlite3, ssl, venv\n"
        "import locale, sys, xml.dom.minidom, zoneinfo\n"
        "locale.setlocale(locale.LC_ALL, 'C.UTF-8')\n"
        "context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)\n"
        f"context.load_verify_locations('{root}/etc/ssl/certs/ca-certificates.crt')\n"
        "print(sys.version_info[:2], len(context.get_ca_certs()) > 100)\n"
    )
    done = subprocess.run(
        [loader, "--library-path", libraries, root / "usr" / "bin" / "python3", "-I", "-c", code],
        env={"LOCPATH": f"{root}/usr/lib/locale", "PYTHONHOME": f"{root}/usr"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    major, minor = base.python_version.split(".")
    assert done.stdout.strip() == f"({major}, {minor}) True", done.stderr


def test_a_base_is_the_same_twice_and_for_another_processor(tmp_path: Path) -> None:
    first = _base(tmp_path / "1", Architecture.ARM64)
    second = _base(tmp_path / "2", Architecture.ARM64)

    assert first.layer == second.layer
    with tarfile.open(first.path) as archive:
        names = set(archive.getnames())
    assert "usr/lib/aarch64-linux-gnu/libssl.so.3" in names
    assert Digest(first.layer.diff_id) != first.layer.digest
