"""What goes into an image, where images go, and what a finished one is. Values and pure rules.

Decides which recipes are acceptable and what the image says about itself. Must not build anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import BinaryIO, NoReturn, Protocol

from hub.core.distribution import OCI_MANIFEST, parse_tag
from hub.core.image import LayerInfo
from protocol.errors import Code, InvalidError
from protocol.ids import Digest, parse_model_name, parse_repository

APP_ROOT = "/var/azureml-app"
MODELS_ROOT = f"{APP_ROOT}/azureml-models"
SITE_ROOT = "/opt/rimward/site"
SERVER_ROOT = "/opt/rimward/server"
PORT = 5001
USER = 65532
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
LAYER_ANNOTATION = "io.rimward.layer"
MAX_MODELS = 32
MAX_REQUIREMENTS = 256
MAX_SETTINGS = 128
MAX_LINE = 8 * 1024
MAX_LABEL = 4 * 1024
MAX_VALUE = 32 * 1024
_FIXED_ENV = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "PYTHONPATH": f"{SERVER_ROOT}:{SITE_ROOT}",
    "PYTHONDONTWRITEBYTECODE": "1",
    "AML_APP_ROOT": APP_ROOT,
    "RIMWARD_MODULE_HOST": "0.0.0.0",  # noqa: S104 - inside a container; the engine publishes it
    "RIMWARD_MODULE_PORT": str(PORT),
}
_RESERVED_ENV = frozenset(_FIXED_ENV) | {"AZUREML_MODEL_DIR", "AZUREML_ENTRY_SCRIPT"}
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_LABEL_NAME = re.compile(r"[a-z0-9](?:[a-z0-9./_-]{0,126}[a-z0-9])?")
_FILENAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9 ._+-]{0,254}")
_PYTHON = re.compile(r"3\.(?:1[0-9]|9)")
_REQUIREMENT = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?"  # name
    r"(?:\s*\[[A-Za-z0-9._,\s-]{0,200}\])?"  # extras
    r"(?:\s*\(?\s*(?:[<>=!~]=?=?)\s*[A-Za-z0-9.*+!_-]{1,80}"  # version
    r"(?:\s*,\s*(?:[<>=!~]=?=?)\s*[A-Za-z0-9.*+!_-]{1,80}){0,15}\s*\)?)?"
    r"(?:\s*;[\sA-Za-z0-9_.'\"<>=!~()-]{1,300})?"  # marker
    r"(?:\s+--hash=sha256:[0-9a-f]{64}){0,64}"
)


class Architecture(StrEnum):
    """Processors images are made for."""

    AMD64 = "amd64"
    ARM64 = "arm64"


class Base(StrEnum):
    """What an image stands on.

    `HOST` has no base layer: it runs only under the process runtime, with the device's own Python.
    """

    HOST = "host"
    DEBIAN = "debian"


class LayerKind(StrEnum):
    """What a layer holds."""

    BASE = "base"
    DEPS = "deps"
    SERVER = "server"
    CODE = "code"
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model to put into an image: its file is in the blobs."""

    name: str
    version: int
    filename: str
    digest: Digest

    @property
    def ref(self) -> str:
        """The model as people write it: `name:version`."""
        return f"{self.name}:{self.version}"

    @property
    def folder(self) -> str:
        """Absolute folder of the file inside the image."""
        return f"{MODELS_ROOT}/{self.name}/{self.version}"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what an image becomes: equal recipes give equal digests.

    (Given that the requirements resolve to the same versions and the server is the same.)

    Attributes:
        name: Repository.
        tag: Tag it gets there.
        models: The models inside; a recipe has at least one.
        code: Digest of a tar (plain or gzip) of the source folder in the blobs; None for no code.
        entry_script: Path of the entry script inside the source folder; None without code.
        requirements: Lines of pip requirements: names, versions, markers, hashes; None for what
            the server needs by itself.
        python_version: Major and minor, for example `3.11`.
    """

    name: str
    tag: str
    models: tuple[ModelFile, ...]
    code: Digest | None = None
    entry_script: str | None = None
    requirements: tuple[str, ...] | None = None
    python_version: str = "3.11"
    architecture: Architecture = Architecture.AMD64
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    base: Base = Base.HOST


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer as the manifest names it.

    Attributes:
        kind: What it holds.
        digest: Digest of the bytes that travel.
        size: How many they are.
        diff_id: Digest of the tar.
        compressed: Whether they are gzip.
    """

    kind: LayerKind
    digest: Digest
    size: int
    diff_id: Digest
    compressed: bool


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """An image that is in the registry.

    Attributes:
        digest: Digest of its manifest; what devices pull.
        config_digest: Digest of its configuration, which engines call the image's id.
        layers: What it is made of, base first.
        sent_bytes: Bytes of layers the registry did not have yet.
    """

    name: str
    tag: str
    digest: Digest
    config_digest: Digest
    layers: tuple[LayerInfo, ...]
    sent_bytes: int


class ImageRegistry(Protocol):
    """A registry images are put into and read from. Methods block."""

    @property
    def authority(self) -> str:
        """Where devices reach it: `host:port`."""
        ...

    def has_blob(self, repository: str, digest: Digest) -> bool:
        """Tell whether a blob is visible in a repository."""
        ...

    def mount_blob(self, repository: str, digest: Digest, source: str | None = None) -> bool:
        """Make a blob visible that the registry holds elsewhere; tell whether that worked.

        Args:
            repository: Where it shall be visible.
            digest: The blob.
            source: A repository that has it, if one is known.
        """
        ...

    def put_blob(self, repository: str, stream: BinaryIO, digest: Digest, size: int) -> None:
        """Store the `size` bytes that `stream` yields from its start; it may be read again.

        Raises:
            FleetError: `digest-mismatch`, `disk-full`, `registry-unreachable`,
                `registry-refused`.
        """
        ...

    def put_manifest(
        self, repository: str, content: bytes, media_type: str, tag: str | None = None
    ) -> Digest:
        """Store a manifest whose blobs are there, and point `tag` at it; return its digest.

        Raises:
            FleetError: `registry-unreachable`, `registry-refused`, or the embedded registry's
                own refusal.
        """
        ...

    def get_manifest(self, repository: str, reference: str) -> tuple[bytes, str]:
        """Return a manifest by tag or digest, checked, and its media type.

        Raises:
            FleetError: `image-unknown`, `digest-mismatch`, `registry-unreachable`,
                `registry-refused`.
        """
        ...

    def get_blob(self, repository: str, digest: Digest) -> BinaryIO:
        """Open a blob; its end is an error (`digest-mismatch`) when it is not what it should be.

        Raises:
            FleetError: `blob-unknown`, `registry-unreachable`, `registry-refused`.
        """
        ...


Progress = Callable[[str], None]


def check_recipe(recipe: Recipe) -> None:
    """Return when a recipe can be built as far as it can be told without looking at files.

    Raises:
        InvalidError: `id-invalid`, `request-invalid`.
    """
    parse_repository(recipe.name)
    parse_tag(recipe.tag)
    if not 1 <= len(recipe.models) <= MAX_MODELS:
        _refuse(f"an image has 1 to {MAX_MODELS} models", "name the models to put into it")
    for model in recipe.models:
        _check_model(model)
    if len({model.ref for model in recipe.models}) != len(recipe.models):
        _refuse("a model stands twice in the image", "name every model once")
    if (recipe.code is None) != (recipe.entry_script is None):
        _refuse("source and entry script come together", "give both, or neither")
    if recipe.entry_script is not None:
        _check_entry_script(recipe.entry_script)
    elif [model.filename.endswith(".onnx") for model in recipe.models] != [True]:
        raise InvalidError(
            "without an entry script an image has exactly one model, an ONNX file",
            code=Code.SCRIPT_INVALID,
            hint="give an entry script with init() and run(): `--source ... --entry-script ...`",
        )
    if not _PYTHON.fullmatch(recipe.python_version):
        _refuse(f"python version {recipe.python_version[:20]!r} is not known", "write '3.11'")
    _check_settings(recipe)
    check_requirements(recipe.requirements or ())


def check_requirements(lines: Sequence[str]) -> tuple[str, ...]:
    """Return requirement lines without blanks and comments.

    Options, addresses and paths are refused: they would let a recipe choose what the hub reads.

    Raises:
        InvalidError: `request-invalid`, naming the line.
    """
    wanted = [line.partition("#")[0].strip() for line in lines]
    kept = tuple(line for line in wanted if line)
    if len(kept) > MAX_REQUIREMENTS:
        _refuse(f"there are more than {MAX_REQUIREMENTS} requirements", "split the image")
    for line in kept:
        if len(line) > MAX_LINE or not _REQUIREMENT.fullmatch(line):
            _refuse(
                f"requirement {line[:120]!r} cannot be used",
                "write 'name==1.2'; options, addresses and paths are not taken",
            )
    return kept


def image_config(recipe: Recipe, layers: Sequence[Layer]) -> bytes:
    """Return the configuration of an image: the same bytes for the same input."""
    names = ",".join(model.ref for model in recipe.models)
    labels = {
        **recipe.labels,
        "io.rimward.python": recipe.python_version,
        "io.rimward.models": names,
        "io.rimward.base": recipe.base.value,
    }
    return _canonical(
        {
            "architecture": recipe.architecture.value,
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {
                "Env": [f"{key}={value}" for key, value in sorted(_environment(recipe).items())],
                "Entrypoint": ["python3", "-m", "inference"],
                "ExposedPorts": {f"{PORT}/tcp": {}},
                "User": str(USER),
                "WorkingDir": APP_ROOT,
                "Labels": labels,
            },
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        }
    )


def image_manifest(config: Digest, config_size: int, layers: Sequence[Layer]) -> bytes:
    """Return the manifest of an image: the same bytes for the same input."""
    return _canonical(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": config, "size": config_size},
            "layers": [
                {
                    "mediaType": OCI_LAYER + ("+gzip" if layer.compressed else ""),
                    "digest": layer.digest,
                    "size": layer.size,
                    "annotations": {LAYER_ANNOTATION: layer.kind.value},
                }
                for layer in layers
            ],
        }
    )


def _environment(recipe: Recipe) -> dict[str, str]:
    single = len(recipe.models) == 1
    env = {
        **recipe.env,
        **_FIXED_ENV,
        "AZUREML_MODEL_DIR": recipe.models[0].folder if single else MODELS_ROOT,
    }
    if recipe.entry_script is not None:
        env["AZUREML_ENTRY_SCRIPT"] = recipe.entry_script
    return env


def _check_model(model: ModelFile) -> None:
    parse_model_name(model.name)
    if model.version < 1:
        _refuse(f"model version {model.version} is not valid", "versions count from 1")
    if not _FILENAME.fullmatch(model.filename):
        _refuse(
            f"file name {model.filename[:80]!r} is not valid",
            "use letters, digits, ' ', '.', '_', '+' and '-'; no folders",
        )


def _check_entry_script(path: str) -> None:
    parts = path.split("/")
    if not path.endswith(".py") or any(part in ("", ".", "..") for part in parts):
        _refuse(
            f"entry script {path[:120]!r} is not valid",
            "give the path of a '.py' file relative to the source folder",
        )
    if not path.isprintable() or len(path) > 255 or "\\" in path:  # noqa: PLR2004 - NAME_MAX
        _refuse("the entry script's path has characters it must not have", "rename the file")


def _check_settings(recipe: Recipe) -> None:
    if len(recipe.env) > MAX_SETTINGS or len(recipe.labels) > MAX_SETTINGS:
        _refuse(f"there are more than {MAX_SETTINGS} variables or labels", "use fewer")
    for key, value in recipe.env.items():
        if key in _RESERVED_ENV:
            _refuse(f"variable {key!r} belongs to the image", "choose another name")
        if not _ENV_NAME.fullmatch(key) or "\0" in value or len(value) > MAX_VALUE:
            _refuse(f"variable {key[:80]!r} is not valid", "use A-Z, 0-9 and '_'")
    for key, value in recipe.labels.items():
        if not _LABEL_NAME.fullmatch(key) or len(value) > MAX_LABEL:
            _refuse(f"label {key[:80]!r} is not valid", "use a-z, 0-9, '.', '_', '/' and '-'")


def _refuse(message: str, hint: str) -> NoReturn:
    raise InvalidError(message, code=Code.REQUEST_INVALID, hint=hint)


def _canonical(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
