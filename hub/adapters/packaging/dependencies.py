"""Python dependencies of an image: resolved and installed by uv, wheels only, then packed.

Decides which versions (uv's resolver with hashes), and what of an installation is left out because
it belongs to this machine. Runs nothing that comes out of a package. Which index is asked is the
operator's configuration of uv, never a recipe's.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from hub.adapters.packaging.budget import Budget, run_program
from hub.adapters.packaging.tar_layers import Entry, bytes_entry, file_entry, write_layer
from hub.core.packaging import SITE_ROOT, Architecture, Layer, LayerKind
from protocol.errors import Code, FleetError, InvalidError, UnavailableError

BUILDER_VERSION = "1"
_UNSATISFIABLE = 1  # uv's exit status for "no solution"; everything else is another trouble
_PLATFORMS = {
    Architecture.AMD64: "x86_64-manylinux_2_28",
    Architecture.ARM64: "aarch64-manylinux_2_28",
}
# These hold paths of this machine, or how the request was worded.
_LOCAL = frozenset({"REQUESTED", "direct_url.json", "uv_cache.json"})
_NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Target:
    """The interpreter dependencies are for."""

    python_version: str
    architecture: Architecture

    @property
    def options(self) -> list[str]:
        """The target as uv's options."""
        platform = _PLATFORMS[self.architecture]
        return ["--python-version", self.python_version, "--python-platform", platform]


@dataclass(frozen=True, slots=True)
class Uv:
    """The uv program.

    Args:
        program: Path of uv.
        locks: Folder where resolutions are kept for times when no index can be reached.
        cache: Folder of uv's own cache; None for where uv keeps it by itself.
        options: The operator's choice of index, for example `("--no-index", "--find-links", d)`.
        environment: Makes the environment uv runs in; None for ours.
    """

    program: str
    locks: Path
    cache: Path | None = None
    options: tuple[str, ...] = ()
    environment: Callable[[], Mapping[str, str]] | None = None

    def lock(self, requirements: Sequence[str], target: Target, budget: Budget) -> str:
        """Return pinned versions with hashes, as requirements for `install`.

        When no index can be reached, the newest resolution of the same requirements is used.

        Raises:
            InvalidError: `dependency-unsatisfiable` with uv's words, `build-failed`.
            UnavailableError: `busy`, when no index can be reached and nothing is kept.
        """
        wanted = "\n".join(sorted(requirements)) + "\n"
        kept = self.locks / f"{_key(wanted, target)}.txt"
        with tempfile.TemporaryDirectory() as folder:
            source, output = Path(folder) / "requirements.in", Path(folder) / "lock.txt"
            source.write_text(wanted)
            command = ["pip", "compile", str(source), "--output-file", str(output)]
            options = ["--generate-hashes", "--no-header", "--no-annotate", *target.options]
            try:
                self._run([*command, *options], Path(folder), budget)
            except UnavailableError:
                if not kept.is_file():
                    raise
                return kept.read_text()
            text = output.read_text()
        self.locks.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(text)
        partial.replace(kept)
        return text

    def install(self, lock: str, site: Path, target: Target, budget: Budget) -> None:
        """Install a lock into the folder `site`.

        Raises:
            InvalidError: `dependency-unsatisfiable`, `build-failed`.
            UnavailableError: `busy`, when the index cannot be reached.
        """
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "lock.txt"
            source.write_text(lock)
            command = ["pip", "install", "--target", str(site), "--requirements", str(source)]
            options = ["--require-hashes", "--no-deps", *target.options]
            self._run([*command, *options], Path(folder), budget)

    def _run(self, arguments: Sequence[str], folder: Path, budget: Budget) -> None:
        command = [self.program, *arguments, "--only-binary", ":all:", "--python", sys.executable]
        # The machine's own certificates count: a mirror or a proxy may have one nobody else knows.
        command += ["--quiet", "--no-progress", "--color", "never", "--system-certs", *self.options]
        if self.cache is not None:
            command += ["--cache-dir", str(self.cache)]
        environment = self.environment() if self.environment else None
        status, output = run_program(command, folder, budget, environment)
        if status:
            raise _failure(status, output)


def lock_key(lock: str, target: Target) -> str:
    """Return the key under which the layer of a lock is cached: hexadecimal digits."""
    return _key(lock, target)


def pack_site(site: Path, destination: Path, budget: Budget) -> Layer:
    """Pack an installation into a layer."""
    return write_layer(destination, LayerKind.DEPS, _entries(site), check=budget.check)


def with_server(
    requirements: Sequence[str] | None, server: Sequence[str], *, has_code: bool
) -> tuple[str, ...]:
    """Return the owner's requirements, completed by what the server needs itself.

    A package the owner names is theirs to choose. Without code the server also needs the engine;
    with code the script decides what it imports.
    """
    if requirements is None:
        return tuple(server)
    named = {_package(line) for line in requirements}
    engine = frozenset({"onnxruntime"}) if has_code else frozenset()
    missing = [line for line in server if _package(line) not in named | engine]
    return (*requirements, *missing)


def _package(line: str) -> str:
    found = _NAME.match(line)
    return re.sub(r"[-_.]+", "-", found[0]).lower() if found else ""


def _key(text: str, target: Target) -> str:
    parts = (BUILDER_VERSION, target.python_version, target.architecture.value, text)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _failure(status: int, output: str) -> FleetError:
    words = " ".join(output.split()).removeprefix("error: ")[:2000]
    if status == _UNSATISFIABLE:
        return InvalidError(
            f"the dependencies cannot be satisfied: {words}",
            code=Code.DEPENDENCY_UNSATISFIABLE,
            hint="change the versions; only ready-made wheels are used",
        )
    if "Failed to fetch" in words or "Request failed" in words or "error sending request" in words:
        return UnavailableError(
            f"the package index cannot be reached: {words}",
            code=Code.BUSY,
            hint="check the network, and what pip or uv are set to on the hub's machine",
        )
    return InvalidError(
        f"the dependencies cannot be installed: {words}",
        code=Code.BUILD_FAILED,
        hint="correct the requirements",
    )


def _entries(site: Path) -> Iterator[Entry]:
    root = SITE_ROOT.lstrip("/")
    for folder, folders, files in os.walk(site):
        here = Path(folder)
        top = here == site
        folders[:] = [
            name for name in folders if not (name == "__pycache__" or (top and name == "bin"))
        ]
        for name in files:
            path = here / name
            relative = path.relative_to(site).as_posix()
            if _is_local(relative):
                continue
            if path.is_symlink():
                raise InvalidError(
                    f"the dependencies contain a link, '{relative}'",
                    code=Code.BUILD_FAILED,
                    hint="use another version of the package",
                )
            if name == "RECORD" and here.name.endswith(".dist-info"):
                yield bytes_entry(f"{root}/{relative}", _record(path))
            else:
                executable = bool(path.stat().st_mode & 0o100)
                yield file_entry(f"{root}/{relative}", path, executable=executable)


def _is_local(relative: str) -> bool:
    folder, _, name = relative.rpartition("/")
    return (
        relative in (".lock", ".gitignore", "CACHEDIR.TAG")
        or relative.startswith(("bin/", "../"))
        or name.endswith(".pyc")
        or (folder.endswith(".dist-info") and name in _LOCAL)
    )


def _record(path: Path) -> bytes:
    """Return a RECORD without what is left out: it has the hashes of their local form."""
    with closing(io.StringIO(path.read_text(), newline="")) as text:
        rows = [row for row in csv.reader(text) if row and not _is_local(row[0])]
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows(sorted(rows))
    return out.getvalue().encode()
