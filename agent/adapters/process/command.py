"""Turns an image's configuration into a command of this host.

Decides the arguments, the environment and the working folder of a module without a container:
paths of the image become paths below its folder, `python` becomes an interpreter of this host with
the same minor version. Starts nothing, reads no environment.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from agent.adapters.images.documents import ImageConfig
from agent.adapters.images.rootfs import contains, locate
from agent.adapters.process.options import RunOptions, parse_environment
from protocol.errors import Code, DeviceError

_PYTHON = re.compile(r"python(?:3(?:\.(?P<minor>\d{1,3}))?)?")
_VERSION = re.compile(r"3\.\d{1,3}")
MODULE_HOST = "127.0.0.1"


def _base_interpreter() -> Path:
    # of a virtual environment's Python, the one below it: the agent's packages are not the module's
    return Path(getattr(sys, "_base_executable", "") or sys.executable)


@dataclass(frozen=True, slots=True)
class HostSettings:
    """What of the host a module may see.

    Attributes:
        path: Folders with the host's programs, as in `PATH`.
        lang: Language for modules whose image names none.
        python: An interpreter of the host.
        python_version: Its version, `3.<minor>`.
    """

    path: str
    lang: str = "C.UTF-8"
    python: Path = field(default_factory=_base_interpreter)
    python_version: str = f"{sys.version_info[0]}.{sys.version_info[1]}"


@dataclass(frozen=True, slots=True)
class Command:
    """Everything needed to start a process."""

    arguments: tuple[str, ...]
    environment: dict[str, str]
    folder: Path


@dataclass(frozen=True, slots=True)
class Place:
    """Where one instance lives: the image's folder, its scratch folder, its port."""

    rootfs: Path
    home: Path
    port: int


def check_interpreter(config: ImageConfig, host: HostSettings) -> None:
    """Refuse an image whose Python this host does not have.

    Raises:
        DeviceError: `interpreter-missing`.
    """
    words = [*(config.config.entrypoint or []), *(config.config.cmd or [])]
    if words and _PYTHON.fullmatch(Path(words[0]).name):
        _interpreter(words[0], config.python, host)


def build_command(
    config: ImageConfig,
    options: RunOptions,
    environment: dict[str, str],
    place: Place,
    host: HostSettings,
) -> Command:
    """Return how to start a module.

    Args:
        config: The image's configuration.
        options: What of the create options counts.
        environment: The manifest's own variables; they win over the image's and the options'.
        place: Where the instance lives.
        host: What of the host it may see.

    Raises:
        DeviceError: `module-start-failed`, `interpreter-missing`.
    """
    merged = parse_environment(config.config.env or []) | options.environment | environment
    seen = {name: _on_host(value, place.rootfs) for name, value in merged.items()}
    image_path = merged.get("PATH", "")
    seen["PATH"] = _search_path(image_path, place.rootfs, host)
    seen.setdefault("LANG", host.lang)
    seen |= {
        "HOME": str(place.home),
        "PYTHONNOUSERSITE": "1",
        "RIMWARD_MODULE_HOST": MODULE_HOST,
        "RIMWARD_MODULE_PORT": str(place.port),
    }
    words = _words(config, options)
    program = _program(words[0], config, place.rootfs, seen["PATH"], host)
    arguments = (program, *(_on_host(word, place.rootfs) for word in words[1:]))
    return Command(arguments, seen, _folder(config, options, place.rootfs))


def _words(config: ImageConfig, options: RunOptions) -> list[str]:
    if options.entrypoint is not None:
        words = [*options.entrypoint, *(options.command or ())]
    else:
        command = config.config.cmd or [] if options.command is None else options.command
        words = [*(config.config.entrypoint or []), *command]
    while words and not words[0]:  # an entrypoint of "" means none
        words.pop(0)
    if not words:
        raise _no_start("the image says nothing to run", "set an entrypoint when building it")
    return words


def _program(name: str, config: ImageConfig, rootfs: Path, search: str, host: HostSettings) -> str:
    if _PYTHON.fullmatch(Path(name).name):
        return str(_interpreter(name, config.python, host))
    if "/" in name:
        found = locate(rootfs, name)
        if found is not None:
            return str(found)
    elif (program := shutil.which(name, path=search)) is not None:
        return program
    raise _no_start(
        f"the program {name[:80]!r} is not in the image",
        "only the layers above the base are used here; start a program of those, or Python",
    )


def _interpreter(name: str, wanted: str, host: HostSettings) -> Path:
    found = _PYTHON.fullmatch(Path(name).name)
    minor = found.group("minor") if found else None
    version = wanted or (f"3.{minor}" if minor else host.python_version)
    if version == host.python_version:
        return host.python
    program = shutil.which(f"python{version}", path=host.path) if _is_version(version) else None
    if program is None:
        raise DeviceError(
            f"the image needs Python {version[:20]!r}, which is not on this device",
            code=Code.INTERPRETER_MISSING,
            hint=f"install it, or build the image for Python {host.python_version}",
        )
    return Path(program)


def _is_version(text: str) -> bool:
    return _VERSION.fullmatch(text) is not None


def _on_host(value: str, rootfs: Path) -> str:
    if "/" not in value:
        return value
    return ":".join(_segment(segment, rootfs) for segment in value.split(":"))


def _segment(segment: str, rootfs: Path) -> str:
    # "//" follows the colon of a URL; "/" alone is more often a URL's path than a folder
    if not segment.startswith("/") or segment.startswith("//") or segment == "/":
        return segment
    found = locate(rootfs, segment)
    return segment if found is None else str(found)


def _search_path(image_path: str, rootfs: Path, host: HostSettings) -> str:
    own = [locate(rootfs, part) for part in image_path.split(":") if part.startswith("/")]
    return ":".join([*(str(part) for part in own if part is not None), host.path])


def _folder(config: ImageConfig, options: RunOptions, rootfs: Path) -> Path:
    """Return the working folder; made when missing, as container engines do."""
    inner = options.working_dir or config.config.working_dir or "/"
    folder = Path(os.path.realpath(rootfs / os.path.normpath("/" + inner).lstrip("/")))
    inside = contains(os.path.realpath(rootfs), str(folder))
    with suppress(OSError):
        if inside:
            folder.mkdir(parents=True, exist_ok=True)
            return folder
    raise _no_start(
        f"the working folder {inner[:80]!r} cannot be used", "name a folder of the image"
    )


def _no_start(what: str, hint: str) -> DeviceError:
    return DeviceError(what, code=Code.MODULE_START_FAILED, hint=hint)
