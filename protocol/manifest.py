"""The deployment manifest: IoT Edge's format, validated strictly, with our own keys behind `x-`.

Decides what a manifest may say. An unknown key is refused with its path unless it starts with `x-`.
"""

from __future__ import annotations

import functools
import operator
import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import inspect

from protocol import strict_json
from protocol.create_options import join_create_options
from protocol.errors import Code, InvalidError
from protocol.ids import ModuleName
from protocol.routes import Route, parse_route
from protocol.twin import check_patch

MAX_BYTES = 1024 * 1024
LAST = 4294967295  # startupOrder of a module that names none

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86400)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
U32 = Annotated[int, msgspec.Meta(ge=0, le=LAST)]
ModuleKey = Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9_-]{1,128}\Z")]
EntryKey = Annotated[str, msgspec.Meta(pattern=r"^[^.$# ]+\Z")]
EnvKey = Annotated[str, msgspec.Meta(pattern=r"^[^+#$\s.=\x00]+\Z")]
FolderName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
EnvText = Annotated[str, msgspec.Meta(pattern=r"^[^\x00]*\Z")]


class _Part(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Base of every object in a manifest."""


class RegistryCredential(_Part, frozen=True):
    """How to log in to one external registry."""

    username: str
    password: str
    address: Text


class RuntimeSettings(_Part, frozen=True):
    """Settings of the container engine."""

    min_docker_version: str = ""
    logging_options: str = ""
    registry_credentials: dict[EntryKey, RegistryCredential] = {}


class RuntimeInfo(_Part, frozen=True):
    """Which engine, and its settings."""

    type: Literal["docker"]
    settings: RuntimeSettings = RuntimeSettings()


class EnvValue(_Part, frozen=True):
    """One environment variable."""

    value: EnvText | int | float | bool

    def text(self) -> str:
        """Return the value as a module sees it in its environment."""
        return str(self.value).lower() if isinstance(self.value, bool) else str(self.value)


class ModuleSettings(_Part, frozen=True):
    """What to run: an image and the engine's create options (a JSON text)."""

    image: Text
    create_options: str = "{}"
    digest: str | None = None


class Probe(_Part, frozen=True):
    """How to ask a module whether it is ready."""

    kind: Literal["http", "tcp"] = "http"
    path: str = "/"
    timeout_seconds: Seconds = 60.0


class Probes(_Part, frozen=True):
    """The probes of a module; absent means the running process is enough."""

    ready: Probe | None = None


class GoldenSample(_Part, frozen=True):
    """One input whose answer is known.

    `expected` is a pattern: keys it names, elements in order, numbers within `tolerance`.
    """

    input: Any
    expected: Any
    tolerance: Annotated[float, msgspec.Meta(ge=0)] = 1e-3


class GoldenSamples(_Part, frozen=True):
    """What a module must answer rightly before it counts as running."""

    samples: Annotated[list[GoldenSample], msgspec.Meta(min_length=1, max_length=1000)]
    path: str = "/score"
    min_pass: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0


class InputSource(_Part, frozen=True):
    """A folder of the device whose files are put to the module, one request a file.

    `directory` is below the agent's `inputs` folder; answers leave as the module's `output`.
    """

    directory: FolderName
    path: str = "/score"
    output: FolderName = "results"


class Module(_Part, frozen=True):
    """One module a device runs."""

    type: Literal["docker"]
    status: Literal["running", "stopped"]
    restart_policy: Literal["never", "on-failure", "on-unhealthy", "always"]
    settings: ModuleSettings
    version: str = ""
    env: dict[EnvKey, EnvValue] = {}
    image_pull_policy: Literal["on-create", "never"] = "on-create"
    startup_order: U32 = LAST
    probes: Probes = msgspec.field(default=Probes(), name="x-probes")
    golden_samples: GoldenSamples | None = msgspec.field(default=None, name="x-goldenSamples")
    inputs: dict[str, InputSource] = msgspec.field(default={}, name="x-inputs")
    port: Port = msgspec.field(default=5001, name="x-port")


class EdgeAgentModule(_Part, frozen=True):
    """The agent's own entry; read for compatibility, this agent is not a container."""

    type: Literal["docker"]
    settings: ModuleSettings
    env: dict[EnvKey, EnvValue] = {}
    image_pull_policy: Literal["on-create", "never"] = "on-create"


class EdgeHubModule(_Part, frozen=True):
    """The edge hub's entry; read for compatibility, the agent routes messages itself."""

    type: Literal["docker"]
    status: Literal["running"]
    restart_policy: Literal["always"]
    settings: ModuleSettings
    env: dict[EnvKey, EnvValue] = {}
    image_pull_policy: Literal["on-create", "never"] = "on-create"
    startup_order: U32 = 0


class SystemModules(_Part, frozen=True):
    """The two parts of the original runtime."""

    edge_agent: EdgeAgentModule | None = None
    edge_hub: EdgeHubModule | None = None


class EdgeAgentDesired(_Part, frozen=True):
    """`$edgeAgent`: which modules run."""

    schema_version: Literal["1.0", "1.1"]
    runtime: RuntimeInfo = RuntimeInfo(type="docker")
    system_modules: SystemModules = SystemModules()
    modules: dict[ModuleKey, Module] = {}


class RouteSettings(_Part, frozen=True):
    """A route in its long form."""

    route: str
    priority: Annotated[int, msgspec.Meta(ge=0, le=9)] | None = None
    time_to_live_secs: U32 = 0


class StoreAndForward(_Part, frozen=True):
    """How long messages wait for the hub; negative means for ever."""

    time_to_live_secs: Annotated[int, msgspec.Meta(ge=-1, le=LAST)] = 7200


class EdgeHubDesired(_Part, frozen=True):
    """`$edgeHub`: where messages go."""

    schema_version: Literal["1.0", "1.1"]
    routes: dict[EntryKey, str | RouteSettings] = {}
    store_and_forward_configuration: StoreAndForward = StoreAndForward()


class Manifest(msgspec.Struct, frozen=True):
    """A manifest that has been read and checked.

    Attributes:
        agent: What `$edgeAgent` says.
        hub: What `$edgeHub` says.
        routes: The parsed routes by name.
        module_desired: Desired properties of each module's own twin.
    """

    agent: EdgeAgentDesired
    hub: EdgeHubDesired
    routes: dict[str, Route]
    module_desired: dict[str, dict[str, Any]]

    @property
    def modules(self) -> dict[ModuleName, Module]:
        """The modules by name."""
        return {ModuleName(name): module for name, module in self.agent.modules.items()}


def parse_manifest(raw: bytes) -> Manifest:
    """Turn untrusted bytes into a Manifest.

    Raises:
        InvalidError: `manifest-invalid` with the path of the first thing that is wrong, or
            `too-large` beyond MAX_BYTES.
    """
    document = strict_json.parse_object(
        raw, limit=MAX_BYTES, code=Code.MANIFEST_INVALID, what="manifest"
    )
    return read_manifest(document)


def read_manifest(document: dict[str, Any]) -> Manifest:
    """Turn a parsed JSON document into a Manifest, or raise InvalidError (`manifest-invalid`)."""
    _only(document, {"modulesContent"}, "")
    content = _object(document.get("modulesContent"), "modulesContent")
    for key in ("$edgeAgent", "$edgeHub"):
        if key not in content:
            raise _refuse(
                f"modulesContent.{key}", "is missing", "both $edgeAgent and $edgeHub stand there"
            )
    path = "modulesContent.$edgeAgent.properties.desired"
    joined = join_create_options(_section(content, "$edgeAgent"), path)
    agent: EdgeAgentDesired = _convert(joined, EdgeAgentDesired, path)
    path = "modulesContent.$edgeHub.properties.desired"
    hub: EdgeHubDesired = _convert(_section(content, "$edgeHub"), EdgeHubDesired, path)
    own = ("$edgeAgent", "$edgeHub")
    twins = {name: _module_twin(content, name) for name in content if name not in own}
    return Manifest(agent, hub, _routes(hub, f"{path}.routes"), twins)


def read_golden(value: Any) -> GoldenSamples:
    """Return golden samples exactly as a manifest may carry them.

    Raises:
        InvalidError: `golden-invalid`, with the path of the first problem.
    """
    try:
        samples: GoldenSamples = _convert(value, GoldenSamples, "golden")
    except InvalidError as error:
        raise InvalidError(str(error), code=Code.GOLDEN_INVALID, hint=error.hint) from error
    return samples


def _section(content: dict[str, Any], key: str) -> dict[str, Any]:
    path = f"modulesContent.{key}"
    holder = _object(content[key], path)
    for name in holder:
        if name.startswith("properties.desired."):
            raise _refuse(
                f"{path}.{name}", "belongs to a layered deployment", "send a whole manifest here"
            )
    _only(holder, {"properties.desired"}, path)
    return _object(holder.get("properties.desired"), f"{path}.properties.desired")


def _module_twin(content: dict[str, Any], name: str) -> dict[str, Any]:
    path = f"modulesContent.{name}"
    _convert(name, ModuleKey, path)
    desired = _section(content, name)
    try:
        return check_patch(desired, what=f"{path}.properties.desired")
    except InvalidError as error:
        raise _refuse(path, f"breaks a rule of twins: {error}", error.hint) from error


def _routes(hub: EdgeHubDesired, path: str) -> dict[str, Route]:
    routes = {}
    for name, value in hub.routes.items():
        text = value if isinstance(value, str) else value.route
        try:
            routes[name] = parse_route(text)
        except InvalidError as error:
            raise _refuse(f"{path}.{name}", f"cannot be used: {error}", error.hint) from error
    return routes


def _convert(value: Any, kind: Any, path: str) -> Any:
    _refuse_unknown(value, kind, path)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        text, _, where = str(error).partition(" - at `$")
        raise _refuse(
            path + where.rstrip("`"), text[:1].lower() + text[1:], "see docs/manifest.md"
        ) from error


def _refuse_unknown(value: Any, kind: Any, path: str) -> None:
    info = kind if isinstance(kind, inspect.Type) else _type_info(kind)
    if isinstance(info, inspect.UnionType):
        for option in info.types:
            _refuse_unknown(value, option, path)
    elif isinstance(info, inspect.StructType) and isinstance(value, dict):
        fields = {field.encode_name: field.type for field in info.fields}
        _only(value, set(fields), path)
        for key, inner in fields.items():
            _refuse_unknown(value.get(key), inner, f"{path}.{key}")
    elif isinstance(info, inspect.DictType) and isinstance(value, dict):
        for key, inner in value.items():  # one by one: msgspec writes `[...]` for every key
            _check_key(key, info.key_type, f"{path}.{key}")
            _convert(inner, _python_type(info.value_type), f"{path}.{key}")
    elif isinstance(info, inspect.ListType) and isinstance(value, list):
        for index, inner in enumerate(value):
            _refuse_unknown(inner, info.item_type, f"{path}[{index}]")


@functools.cache
def _type_info(kind: Any) -> inspect.Type:
    return inspect.type_info(kind)


def _check_key(key: str, kind: inspect.Type, path: str) -> None:
    pattern = kind.pattern if isinstance(kind, inspect.StrType) else None
    if pattern and not re.search(pattern, key):
        raise _refuse(path, f"has a name that does not match {pattern}", "see docs/manifest.md")


def _python_type(info: inspect.Type) -> Any:
    if isinstance(info, inspect.StructType):
        return info.cls
    if isinstance(info, inspect.UnionType):
        return functools.reduce(operator.or_, map(_python_type, info.types))
    return str if isinstance(info, inspect.StrType) else Any


def _only(value: dict[str, Any], known: set[str], path: str) -> None:
    for key in value:
        if key not in known and not key.startswith("x-"):
            where = f"{path}.{key}".lstrip(".")
            names = ", ".join(sorted(known))
            raise _refuse(
                where, "is not a key we know", f"known here: {names}; our own start with 'x-'"
            )


def _object(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _refuse(path, "is missing or not an object", "write a JSON object there")
    return value


def _refuse(path: str, problem: str, hint: str | None) -> InvalidError:
    return InvalidError(f"{path[:300]!r} {problem}", code=Code.MANIFEST_INVALID, hint=hint)
