"""A builder whose world is small: three tiny wheels, a tiny server, an embedded registry."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import uv

from hub.adapters.blobs import DiskBlobs
from hub.adapters.clock import SystemClock
from hub.adapters.debian.base import DebianBases
from hub.adapters.memory import MemoryStore
from hub.adapters.packaging.budget import Budget
from hub.adapters.packaging.builder import ImageBuilder
from hub.adapters.packaging.dependencies import Uv
from hub.adapters.registry.embedded import EmbeddedRegistry
from hub.core.packaging import BuiltImage, ModelFile, Recipe
from protocol.ids import Digest

SCRIPT = b"def init():\n    pass\n\n\ndef run(data):\n    return data\n"


def make_wheel(folder: Path, name: str, version: str, requires: str = "") -> None:
    """Write a wheel with one module and one command."""
    info = f"{name}-{version}.dist-info"
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    files = {
        f"{name}/__init__.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name}-run = {name}:VERSION\n",
    }
    record = ""
    for path, text in files.items():
        raw = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        record += f"{path},sha256={raw.decode()},{len(text)}\n"
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


def make_tar(files: Mapping[str, bytes]) -> bytes:
    """Return an archive of regular files as tarfile writes it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mtime = 1_700_000_000
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@dataclass
class Workshop:
    """Everything a build needs, below one folder."""

    root: Path
    wheels: Path
    steps: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.blobs = DiskBlobs(self.root / "blobs")
        self.registry = EmbeddedRegistry("hub:5000", MemoryStore(), self.blobs)
        modules = self.root / "modules"
        (modules / "inference" / "__pycache__").mkdir(parents=True)
        (modules / "inference" / "__main__.py").write_text("print('served')\n")
        (modules / "inference" / "__pycache__" / "x.pyc").write_bytes(b"not for images")
        (modules / "inference" / "requirements.txt").write_text("# the server\ntinyserver>=1\n")
        (modules / "azureml_shim" / "azureml").mkdir(parents=True)
        (modules / "azureml_shim" / "azureml" / "__init__.py").write_text("")
        protocol = self.root / "protocol"
        protocol.mkdir()
        for name in ("__init__.py", "golden.py", "topics.py"):
            (protocol / name).write_text("")
        self.uv = Uv(
            uv.find_uv_bin(),
            self.root / "cache" / "locks",
            self.root / "uv-cache",
            ("--no-index", "--find-links", str(self.wheels), "--no-config"),
        )
        clock = SystemClock()
        self.builder = ImageBuilder(
            blobs=self.blobs,
            cache_dir=self.root / "cache",
            modules_dir=modules,
            protocol_dir=protocol,
            uv=self.uv,
            bases=DebianBases(self.root / "bases", self.root),
            clock=clock,
        )
        self.budget = Budget(clock, clock.monotonic() + 60, threading.Event())

    def put(self, data: bytes) -> Digest:
        return self.blobs.put(io.BytesIO(data))

    def recipe(self, model: bytes = b"weights", **changes: object) -> Recipe:
        models = (ModelFile("digits", 1, "model.onnx", self.put(model)),)
        fields = {"name": "team/digits", "tag": "1", "models": models, **changes}
        return Recipe(**fields)  # type: ignore[arg-type] # tests name fields freely

    def with_code(self, files: Mapping[str, bytes], script: str = "score.py") -> Recipe:
        return self.recipe(code=self.put(make_tar(files)), entry_script=script)

    def build(self, recipe: Recipe, stop: threading.Event | None = None) -> BuiltImage:
        return self.builder.build(recipe, self.registry, self.steps.append, stop=stop)
