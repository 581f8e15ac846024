"""What the engine is told when a container is made.

Decides what of the manifest's create options is passed on (everything) and what is set by this
agent alone: labels, the published port, restarts and the bound of the log. Calls no engine.
"""

from __future__ import annotations

import ipaddress
from datetime import datetime
from typing import Any

from agent.adapters.process.options import parse_environment
from agent.core.plan import Instance, InstanceState, ModuleSpec
from protocol.errors import Code, DeviceError
from protocol.ids import DeviceId, ImageRef, ModuleName

DEVICE_LABEL = "io.rimward.device"
_MODULE_LABEL = "io.rimward.module"
_FINGERPRINT_LABEL = "io.rimward.fingerprint"
_IMAGE_LABEL = "io.rimward.image"
_PORT_LABEL = "io.rimward.port"
_LOG = {"Type": "json-file", "Config": {"max-size": "5m", "max-file": "2"}}
_ANYWHERE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - read from an answer, bound to nothing


def container_name(device: DeviceId, instance_id: str) -> str:
    """Return the name of an instance's container."""
    return f"rimward-{device}-{instance_id}"


def pulled_name(image: ImageRef) -> str:
    """Return an image's name by digest, as the engine lists it."""
    return str(ImageRef(image.authority, image.repository, None, image.digest))


def create_body(device: DeviceId, spec: ModuleSpec) -> dict[str, Any]:
    """Return the body of the engine's create call.

    Raises:
        DeviceError: `module-start-failed`, when a create option has the wrong type.
    """
    options = spec.create_options
    port = f"{spec.port}/tcp"
    own = {"RIMWARD_MODULE_HOST": "0.0.0.0", "RIMWARD_MODULE_PORT": str(spec.port)}  # noqa: S104 - inside the container's own network
    environment = parse_environment(_list(options, "Env")) | spec.env | own
    host = dict(_mapping(options, "HostConfig"))
    bindings = dict(_mapping(host, "PortBindings"))
    bindings.setdefault(port, [{"HostIp": "127.0.0.1", "HostPort": ""}])
    host.setdefault("LogConfig", _LOG)
    host |= {"PortBindings": bindings, "RestartPolicy": {"Name": "no"}, "AutoRemove": False}
    labels = {
        DEVICE_LABEL: device,
        _MODULE_LABEL: spec.name,
        _FINGERPRINT_LABEL: spec.fingerprint,
        _IMAGE_LABEL: spec.image.digest or "",
        _PORT_LABEL: str(spec.port),
    }
    return options | {
        "Image": pulled_name(spec.image),
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "ExposedPorts": _mapping(options, "ExposedPorts") | {port: {}},
        "Labels": _mapping(options, "Labels") | labels,
        "HostConfig": host,
    }


def to_instance(container: dict[str, Any]) -> Instance | None:
    """Return what the engine's inspect call says, or None for a container that is not ours."""
    labels = container["Config"].get("Labels") or {}
    if not {_MODULE_LABEL, _FINGERPRINT_LABEL, _IMAGE_LABEL} <= labels.keys():
        return None
    state = container["State"]
    running = bool(state["Running"])
    was_started = state.get("Status") != "created"
    return Instance(
        id=f"{labels[_MODULE_LABEL]}.{labels[_FINGERPRINT_LABEL]}",
        module=ModuleName(labels[_MODULE_LABEL]),
        fingerprint=labels[_FINGERPRINT_LABEL],
        state=InstanceState.RUNNING if running else InstanceState.EXITED,
        image=labels[_IMAGE_LABEL],
        endpoint=_endpoint(container, labels.get(_PORT_LABEL, "")) if running else None,
        exit_code=state.get("ExitCode") if was_started and not running else None,
        started_at=_seconds(state.get("StartedAt", "")),
    )


def is_loopback(authority: str) -> bool:
    """Tell whether an image's registry is on this machine, where the engine asks for no TLS."""
    host = authority.rpartition(":")[0] or authority
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _endpoint(container: dict[str, Any], port: str) -> str | None:
    if container["HostConfig"].get("NetworkMode") == "host":
        return f"http://127.0.0.1:{port}"
    published = (container["NetworkSettings"].get("Ports") or {}).get(f"{port}/tcp")
    if not published:
        return None
    address = published[0].get("HostIp", "")
    host = "127.0.0.1" if address in _ANYWHERE else address
    return f"http://{host}:{published[0]['HostPort']}"


def _seconds(text: str) -> float:
    """Return an engine's time (nanoseconds, `Z`) as seconds since 1970."""
    whole, _, rest = text.removesuffix("Z").partition(".")
    try:
        return datetime.fromisoformat(f"{whole}.{rest[:6]:0<6}+00:00").timestamp()
    except ValueError:
        return 0.0


def _mapping(options: dict[str, Any], key: str) -> dict[str, Any]:
    value = options.get(key) or {}
    if not isinstance(value, dict):
        raise _wrong(key)
    return value


def _list(options: dict[str, Any], key: str) -> list[str]:
    value = options.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _wrong(key)
    return value


def _wrong(key: str) -> DeviceError:
    return DeviceError(
        f"the create option {key!r} has a wrong value",
        code=Code.MODULE_START_FAILED,
        hint="write the create options as the container engine's API does",
    )
