"""How this hub is set up: read once, from options and environment; nothing else reads either."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from protocol.errors import Code, InvalidError

PREFIX = "RIMWARD_"
VERSION = "0.1.0"
_KNOWN = {
    "DATA": "folder of everything the hub keeps",
    "HOST": "address the hub listens on",
    "HTTPS_PORT": "port of the HTTPS listener, 0 for a free one",
    "MQTT_PORT": "port of the MQTT listener, 0 for a free one",
    "ADVERTISE": "name or address devices reach the hub by",
    "DATABASE": "SQLAlchemy URL; empty for SQLite in the data folder",
    "BROKER": "mqtts://host:port of an external MQTT broker; empty for the built-in front",
    "REGISTRY": "https://user:password@host:port of an external image registry; empty for our own",
    "REGISTRY_CA": "PEM file of the CA of the external registry",
    "CACHE": "folder of what packaging may fetch again: wheels, base images",
    "LOG_LEVEL": "debug, info, warning or error",
}
_HOST = re.compile(r"[A-Za-z0-9.:-]{1,253}")
_LOG_LEVELS = ("debug", "info", "warning", "error")
# Read by the command line and the tests, not by the hub.
_OTHERS = ("CONTEXT", "AGENT_", "TEST_", "MODULE_", "UPDATE_GOLDEN")


@dataclass(frozen=True, slots=True)
class RegistryLogin:
    """An external registry.

    Attributes:
        url: Base URL without user and password.
        ca: PEM file to trust, or None for the system's.
    """

    url: str
    username: str
    password: str
    ca: Path | None


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set; the meanings stand in docs/settings.md."""

    data: Path
    cache: Path
    host: str = "127.0.0.1"
    https_port: int = 8443
    mqtt_port: int = 8883
    advertise: str = ""
    database: str = ""
    broker: tuple[str, int] | None = None
    registry: RegistryLogin | None = None
    log_level: str = "info"

    @property
    def address(self) -> str:
        """Name or address devices reach the hub by."""
        return self.advertise or self.host

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the database."""
        return self.database or f"sqlite:///{self.data / 'hub.db'}"

    def redacted(self) -> dict[str, str]:
        """Return the settings as they may stand in a log."""
        return {
            "data": str(self.data),
            "listens": f"{self.host}:{self.https_port}, mqtt {self.mqtt_port}",
            "database": urlsplit(self.database_url).scheme,
            "broker": f"{self.broker[0]}:{self.broker[1]}" if self.broker else "built-in",
            "registry": self.registry.url if self.registry else "built-in",
        }


def documented() -> dict[str, str]:
    """Return every variable and its meaning, for docs/settings.md."""
    return {PREFIX + name: meaning for name, meaning in _KNOWN.items()}


def default_data(environment: Mapping[str, str]) -> Path:
    """Return the hub's folder when none is named."""
    base = environment.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "rimward" / "hub"


def context_path(environment: Mapping[str, str] | None = None) -> Path:
    """Return the file that tells the command line which hub to talk to, and as whom."""
    env = os.environ if environment is None else environment
    named = env.get(PREFIX + "CONTEXT")
    if named:
        return Path(named)
    return Path(env.get(PREFIX + "DATA") or default_data(env)) / "admin.json"


def docker_host() -> str:
    """Return the address of the container engine that tools of this machine would use."""
    return os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")


def environment() -> dict[str, str]:
    """Return the environment to start our own programs with: what is set, less what is ours."""
    return {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}


def read_settings(
    environment: Mapping[str, str] | None = None, options: Mapping[str, str] | None = None
) -> Settings:
    """Return the settings: options (by variable name, without prefix) before environment.

    Raises:
        InvalidError: `settings-invalid`, naming the variable.
    """
    env = dict(os.environ) if environment is None else dict(environment)
    given = {k.removeprefix(PREFIX): v for k, v in env.items() if k.startswith(PREFIX) and v}
    for name in given:
        if name not in _KNOWN and not name.startswith(_OTHERS):
            known = ", ".join(sorted(_KNOWN))
            raise _refuse(name, "is not a setting we know", f"known: {known}")
    given |= {k: v for k, v in (options or {}).items() if v}
    cache = env.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    host, ca = given.get("HOST", "127.0.0.1"), given.get("REGISTRY_CA")
    if not given.get("ADVERTISE") and host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        raise _refuse(
            "ADVERTISE", "is needed when the hub listens everywhere", "name the hub's host"
        )
    for name in ("HOST", "ADVERTISE"):
        if name in given and not _HOST.fullmatch(given[name]):
            raise _refuse(name, f"is {given[name]!r}", "give a host name or an address")
    return Settings(
        data=Path(given.get("DATA") or default_data(env)).absolute(),
        cache=Path(given.get("CACHE") or Path(cache) / "rimward").absolute(),
        host=host,
        https_port=_port(given, "HTTPS_PORT", 8443),
        mqtt_port=_port(given, "MQTT_PORT", 8883),
        advertise=given.get("ADVERTISE", ""),
        database=given.get("DATABASE", ""),
        broker=_broker(given.get("BROKER", "")),
        registry=_registry(given.get("REGISTRY", ""), Path(ca) if ca else None),
        log_level=_log_level(given.get("LOG_LEVEL", "info")),
    )


def is_debugging() -> bool:
    """Tell whether a defect shall show its traceback."""
    return os.environ.get(PREFIX + "LOG_LEVEL", "").lower() == "debug"


def _log_level(text: str) -> str:
    if text.lower() not in _LOG_LEVELS:
        raise _refuse("LOG_LEVEL", f"is {text!r}", f"one of {', '.join(_LOG_LEVELS)}")
    return text.lower()


def _port(given: Mapping[str, str], name: str, default: int) -> int:
    text = given.get(name, str(default))
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > 65535:  # noqa: PLR2004 - ports
        raise _refuse(name, f"is {text!r}", "give a port from 0 to 65535")
    return int(text)


def _broker(text: str) -> tuple[str, int] | None:
    if not text:
        return None
    url = _url(text)
    if url is None or url.scheme != "mqtts" or not url.hostname or url.username is not None:
        # The text may hold a password, so it is not repeated.
        hint = "write mqtts://host:port: the hub has a certificate, plain MQTT is not spoken"
        raise _refuse("BROKER", "is not an mqtts URL", hint)
    return url.hostname, url.port or 8883


def _registry(text: str, ca: Path | None) -> RegistryLogin | None:
    if not text:
        return None
    url = _url(text)
    if url is None or url.scheme != "https" or not url.hostname:
        raise _refuse("REGISTRY", "is not an https URL", "write https://user:password@host:port")
    if ca is not None and not ca.is_file():
        raise _refuse("REGISTRY_CA", f"names {str(ca)!r}, which is not there", "name a PEM file")
    authority = url.netloc.rpartition("@")[2]
    username, password = unquote(url.username or ""), unquote(url.password or "")
    return RegistryLogin(f"https://{authority}", username, password, ca)


def _url(text: str) -> SplitResult | None:
    """Return the parts of a URL, or None when it is none or its port is not one."""
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError:
        return None
    return url


def _refuse(name: str, problem: str, hint: str) -> InvalidError:
    return InvalidError(
        f"setting {PREFIX + name!r} {problem}", code=Code.SETTINGS_INVALID, hint=hint
    )
