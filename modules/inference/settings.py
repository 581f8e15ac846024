"""What the environment says, read once into one frozen object.

Decides names, defaults and bounds of the variables; must not touch the disk or the network.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import StartupCode, StartupError

MIB = 1024 * 1024
MAX_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Settings:
    """All the server is told from outside. Sizes in bytes, times in milliseconds."""

    model_dir: Path | None = None
    app_root: Path = Path("/var/azureml-app")
    source_directory: str | None = None
    entry_script: str | None = None
    scoring_timeout_ms: int = 3_600_000
    service_name: str = "ML service"
    service_version: str = "1.0"
    host: str = "127.0.0.1"
    port: int = 5001
    threads: int = 1
    max_request_bytes: int = 100 * MIB
    golden_file: Path | None = None
    drain_ms: int = 7_000


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of `environment` (default: the process's own).

    An empty variable counts as absent. Raises StartupError for a number out of its bounds.
    """
    given = {k: v for k, v in (os.environ if environment is None else environment).items() if v}
    default = Settings()
    return Settings(
        model_dir=_path(given.get("AZUREML_MODEL_DIR")),
        app_root=Path(given.get("AML_APP_ROOT", default.app_root)),
        source_directory=given.get("AZUREML_SOURCE_DIRECTORY"),
        entry_script=given.get("AZUREML_ENTRY_SCRIPT"),
        scoring_timeout_ms=_number(
            given, "SCORING_TIMEOUT_MS", default.scoring_timeout_ms, 86_400_000
        ),
        service_name=given.get("SERVICE_NAME", default.service_name),
        service_version=given.get("SERVICE_VERSION", default.service_version),
        host=given.get("RIMWARD_MODULE_HOST", default.host),
        port=_number(given, "RIMWARD_MODULE_PORT", default.port, 65_535),
        threads=_number(given, "RIMWARD_THREADS", default.threads, 256),
        max_request_bytes=_number(
            given, "RIMWARD_MAX_REQUEST_BYTES", default.max_request_bytes, 2048 * MIB
        ),
        golden_file=_path(given.get("RIMWARD_GOLDEN_FILE")),
        drain_ms=_number(given, "RIMWARD_DRAIN_MS", default.drain_ms, 3_600_000),
    )


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _number(given: Mapping[str, str], name: str, default: int, highest: int) -> int:
    text = given.get(name)
    if text is None:
        return default
    value = int(text) if text.isascii() and text.isdigit() and len(text) < MAX_DIGITS else 0
    if not 1 <= value <= highest:
        raise StartupError(
            StartupCode.SETTING_INVALID,
            f"'{name}' is {text!r}, not a whole number from 1 to {highest}",
            hint=f"set `{name}` to such a number, or leave it unset for {default}",
        )
    return value
