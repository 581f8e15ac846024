"""Reads the container engine's create options for a runtime that has no container.

Decides which options a plain process can honour; says which ones it leaves out, never drops one
silently. Changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from protocol.errors import Code, DeviceError

_HONOURED = frozenset({"Entrypoint", "Cmd", "Env", "WorkingDir", "ExposedPorts", "HostConfig"})
_HOST_HONOURED = frozenset({"Memory", "PortBindings"})
_PORT_LIMIT = 65535


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What of the create options a process can honour.

    Attributes:
        entrypoint: Replaces the image's, and its command with it; None keeps both.
        command: Replaces the image's command; None keeps it.
        environment: Added to the image's.
        working_dir: Replaces the image's; empty keeps it.
        memory_bytes: Most memory for data, 0 for no limit.
        host_port: Port the module is to be found at, 0 for any.
        ignored: Options that are set and have no meaning here.
    """

    entrypoint: tuple[str, ...] | None
    command: tuple[str, ...] | None
    environment: dict[str, str]
    working_dir: str
    memory_bytes: int
    host_port: int
    ignored: tuple[str, ...]


def read_options(options: dict[str, Any], port: int) -> RunOptions:
    """Return what can be honoured.

    Args:
        options: `ModuleSpec.create_options`.
        port: `ModuleSpec.port`, whose binding names the host's port.

    Raises:
        DeviceError: `module-start-failed`, when an option has the wrong type.
    """
    host = options.get("HostConfig") or {}
    if not isinstance(host, dict):
        raise _wrong("HostConfig")
    ignored = [key for key, value in options.items() if value and key not in _HONOURED]
    ignored += [f"HostConfig.{k}" for k, value in host.items() if value and k not in _HOST_HONOURED]
    return RunOptions(
        entrypoint=_words(options, "Entrypoint"),
        command=_words(options, "Cmd"),
        environment=parse_environment(_words(options, "Env") or ()),
        working_dir=_text(options, "WorkingDir"),
        memory_bytes=_number(host, "Memory"),
        host_port=_host_port(host.get("PortBindings") or {}, port),
        ignored=tuple(sorted(ignored)),
    )


def parse_environment(lines: tuple[str, ...] | list[str]) -> dict[str, str]:
    """Return `NAME=value` lines as a mapping; a line without `=` sets nothing."""
    pairs = (line.partition("=") for line in lines)
    return {name: value for name, equals, value in pairs if name and equals}


def _words(options: dict[str, Any], key: str) -> tuple[str, ...] | None:
    value = options.get(key)
    if value is None:
        return None
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not all(_is_clean(word) for word in words):
        raise _wrong(key)
    return tuple(words)


def _is_clean(word: object) -> bool:
    return isinstance(word, str) and "\0" not in word


def _text(options: dict[str, Any], key: str) -> str:
    value = options.get(key) or ""
    if not isinstance(value, str) or "\0" in value:
        raise _wrong(key)
    return value


def _number(options: dict[str, Any], key: str) -> int:
    value = options.get(key) or 0
    if not isinstance(value, int) or not 0 <= value < 2**63:
        raise _wrong(f"HostConfig.{key}")
    return value


def _host_port(bindings: object, port: int) -> int:
    if not isinstance(bindings, dict):
        raise _wrong("HostConfig.PortBindings")
    wanted = bindings.get(f"{port}/tcp") or [{}]
    try:
        number = int(wanted[0].get("HostPort") or 0)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise _wrong("HostConfig.PortBindings") from error
    if not 0 <= number <= _PORT_LIMIT:
        raise _wrong("HostConfig.PortBindings")
    return number


def _wrong(key: str) -> DeviceError:
    return DeviceError(
        f"the create option {key!r} has a wrong value",
        code=Code.MODULE_START_FAILED,
        hint="write the create options as the container engine's API does",
    )
