"""How this agent is set up: read once, from options and environment; nothing else reads either."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import Code, InvalidError

PREFIX = "RIMWARD_AGENT_"
VERSION = "0.1.0"
RUNTIMES = ("auto", "docker", "process")
_KNOWN = {
    "HOME": "folder of identity, store, images and inputs",
    "RUNTIME": "docker, process, or auto for docker where an engine answers",
    "HUB_URL": "address of the hub, instead of the one from the enrolment",
    "MQTT": "host:port of the MQTT endpoint, instead of the one from the enrolment",
    "TICK_SECONDS": "longest time between two looks at the modules (1)",
    "RESTART_SECONDS": "delay before the first restart of a module that ended (10)",
    "LOG_LEVEL": "debug, info, warning or error",
    "LEDGER": "file that gets a line for every message the hub acknowledged, for audits",
}
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set.

    Attributes:
        home: Folder of identity, store, images and inputs.
        runtime: `docker`, `process`, or `auto` for docker where an engine answers.
        hub_url: Overrides the hub's address from the enrolment (a tunnel, another name).
        mqtt: `host:port` that overrides the MQTT endpoint from the enrolment.
        tick_seconds: Longest time between two looks at the modules.
        restart_seconds: Delay before the first restart of a module that ended.
        log_level: `debug`, `info`, `warning` or `error`.
        path: Folders with the host's programs, for modules without a container.
        docker: Address of the container engine.
        ledger: File that gets a line for every message the hub acknowledged; for audits.
    """

    home: Path
    runtime: str = "auto"
    hub_url: str | None = None
    mqtt: tuple[str, int] | None = None
    tick_seconds: float = 1.0
    restart_seconds: float = 10.0
    log_level: str = "info"
    path: str = "/usr/local/bin:/usr/bin:/bin"
    docker: str = "unix:///var/run/docker.sock"
    ledger: Path | None = None


def documented() -> dict[str, str]:
    """Return every variable and its meaning, for docs/settings.md."""
    return {PREFIX + name: meaning for name, meaning in _KNOWN.items()}


def default_home(environment: Mapping[str, str]) -> Path:
    """Return the folder of the agent when none is named."""
    if named := environment.get(PREFIX + "HOME"):
        return Path(named)
    if os.geteuid() == 0:
        return Path("/var/lib/rimward-agent")
    base = environment.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "rimward-agent"


def read_settings(
    environment: Mapping[str, str] | None = None,
    *,
    home: Path | None = None,
    runtime: str | None = None,
) -> Settings:
    """Return the settings, options before environment before defaults.

    Raises:
        InvalidError: `settings-invalid`, naming the variable.
    """
    given = dict(os.environ) if environment is None else dict(environment)
    for name in given:
        if name.startswith(PREFIX) and name.removeprefix(PREFIX) not in _KNOWN:
            raise _refuse(name, "is not a setting we know", f"known: {', '.join(sorted(_KNOWN))}")
    chosen = runtime or given.get(PREFIX + "RUNTIME", "auto")
    if chosen not in RUNTIMES:
        raise _refuse(PREFIX + "RUNTIME", f"is {chosen!r}", f"choose one of {', '.join(RUNTIMES)}")
    level = given.get(PREFIX + "LOG_LEVEL", "info").lower()
    if level not in LOG_LEVELS:
        hint = f"choose one of {', '.join(LOG_LEVELS)}"
        raise _refuse(PREFIX + "LOG_LEVEL", f"is {level!r}", hint)
    ledger = given.get(PREFIX + "LEDGER")
    return Settings(
        home=(home or default_home(given)).absolute(),
        runtime=chosen,
        hub_url=given.get(PREFIX + "HUB_URL"),
        mqtt=_endpoint(given.get(PREFIX + "MQTT")),
        tick_seconds=_seconds(given, "TICK_SECONDS", 1.0),
        restart_seconds=_seconds(given, "RESTART_SECONDS", 10.0),
        log_level=level,
        path=given.get("PATH", "/usr/local/bin:/usr/bin:/bin"),
        docker=given.get("DOCKER_HOST", "unix:///var/run/docker.sock"),
        ledger=Path(ledger) if ledger else None,
    )


def _endpoint(text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:  # noqa: PLR2004 - ports
        raise _refuse(PREFIX + "MQTT", f"is {text!r}", "write host:port")
    return host.strip("[]"), int(port)


def _seconds(given: Mapping[str, str], name: str, default: float) -> float:
    text = given.get(PREFIX + name)
    try:
        value = float(text) if text is not None else default
    except ValueError:
        value = -1.0
    if not 0 < value <= 3600:  # noqa: PLR2004 - an hour
        raise _refuse(PREFIX + name, f"is {text!r}", "give seconds above 0, at most 3600")
    return value


def _refuse(name: str, problem: str, hint: str) -> InvalidError:
    return InvalidError(f"setting {name!r} {problem}", code=Code.SETTINGS_INVALID, hint=hint)
