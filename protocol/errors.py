"""Every failure Rimward can name: a code for machines, a sentence, and a hint that says what to do.

The catalogue is one table. Both sides, the CLI, the HTTP API and `docs/errors.md` are rendered from
it; a failure that is not here is a bug and may crash.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Code(StrEnum):
    """Stable identifiers: they appear on the wire, in logs and in the docs, and never change."""

    # what somebody sent is wrong
    REQUEST_INVALID = "request-invalid"
    ID_INVALID = "id-invalid"
    MANIFEST_INVALID = "manifest-invalid"
    MESSAGE_INVALID = "message-invalid"
    TWIN_INVALID = "twin-invalid"
    CONDITION_INVALID = "condition-invalid"
    PROFILE_INVALID = "profile-invalid"
    SETTINGS_INVALID = "settings-invalid"
    SCRIPT_INVALID = "script-invalid"
    GOLDEN_INVALID = "golden-invalid"
    DIGEST_MISMATCH = "digest-mismatch"
    TOO_LARGE = "too-large"
    # what was asked for does not exist
    FILE_MISSING = "file-missing"
    DEVICE_UNKNOWN = "device-unknown"
    MODULE_UNKNOWN = "module-unknown"
    MODEL_UNKNOWN = "model-unknown"
    IMAGE_UNKNOWN = "image-unknown"
    DEPLOYMENT_UNKNOWN = "deployment-unknown"
    PROFILE_UNKNOWN = "profile-unknown"
    BLOB_UNKNOWN = "blob-unknown"
    # what was asked for contradicts what is there
    DEVICE_EXISTS = "device-exists"
    DEPLOYMENT_EXISTS = "deployment-exists"
    IN_USE = "in-use"
    STATE_CONFLICT = "state-conflict"
    ALREADY_ENROLLED = "already-enrolled"
    NOT_ENROLLED = "not-enrolled"
    # who is asking
    TOKEN_INVALID = "token-invalid"  # noqa: S105 - a code, not a secret
    FORBIDDEN = "forbidden"
    CLAIM_INVALID = "claim-invalid"
    CERTIFICATE_INVALID = "certificate-invalid"
    SIGNATURE_INVALID = "signature-invalid"
    VERSION_ROLLED_BACK = "version-rolled-back"
    DOCUMENT_EXPIRED = "document-expired"
    # the machinery
    HUB_UNREACHABLE = "hub-unreachable"
    BROKER_UNREACHABLE = "broker-unreachable"
    REGISTRY_UNREACHABLE = "registry-unreachable"
    REGISTRY_REFUSED = "registry-refused"
    DATABASE_UNAVAILABLE = "database-unavailable"
    DATABASE_CORRUPT = "database-corrupt"
    DATABASE_NEWER = "database-newer"
    PORT_IN_USE = "port-in-use"
    DISK_FULL = "disk-full"
    BUSY = "busy"
    # packaging
    BUILD_FAILED = "build-failed"
    DEPENDENCY_UNSATISFIABLE = "dependency-unsatisfiable"
    BASE_UNAVAILABLE = "base-unavailable"
    # on the device
    IMAGE_UNAVAILABLE = "image-unavailable"
    IMAGE_UNSUITABLE = "image-unsuitable"
    RUNTIME_UNAVAILABLE = "runtime-unavailable"
    INTERPRETER_MISSING = "interpreter-missing"
    MODULE_START_FAILED = "module-start-failed"
    PROBE_FAILED = "probe-failed"
    GOLDEN_MISMATCH = "golden-mismatch"
    DEVICE_SILENT = "device-silent"
    # us
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the catalogue.

    Attributes:
        meaning: What happened, for `docs/errors.md`.
        http_status: Status of the HTTP answer that carries it.
        exit_code: 1 refused, 2 usage, 3 try again later, 70 our bug.
        retryable: Whether the same call may work later without anybody changing anything.
    """

    meaning: str
    http_status: int
    exit_code: int = 1
    retryable: bool = False


def _later(meaning: str, http_status: int = 503) -> Entry:
    return Entry(meaning, http_status, exit_code=3, retryable=True)


CATALOGUE: dict[Code, Entry] = {
    Code.REQUEST_INVALID: Entry("a request or an option has a field that is wrong", 422, 2),
    Code.ID_INVALID: Entry("a name or id does not have the form it must have", 422, 2),
    Code.MANIFEST_INVALID: Entry("a deployment manifest is not valid", 422),
    Code.MESSAGE_INVALID: Entry("a message between device and hub cannot be read", 422),
    Code.TWIN_INVALID: Entry("a twin patch breaks the rules for keys, depth or values", 422),
    Code.CONDITION_INVALID: Entry("a target condition cannot be parsed", 422),
    Code.PROFILE_INVALID: Entry("a device profile is not valid", 422),
    Code.SETTINGS_INVALID: Entry("a setting is missing, unknown or has a wrong value", 422, 2),
    Code.SCRIPT_INVALID: Entry("an entry script is missing `init` or `run`", 422),
    Code.GOLDEN_INVALID: Entry("a file of golden samples cannot be read", 422),
    Code.DIGEST_MISMATCH: Entry("bytes do not have the digest they were announced with", 422),
    Code.TOO_LARGE: Entry("something is larger than its limit", 413),
    Code.FILE_MISSING: Entry("a file or folder that was named is not there", 422, 2),
    Code.DEVICE_UNKNOWN: Entry("no device has this id", 404),
    Code.MODULE_UNKNOWN: Entry("no module has this name on this device", 404),
    Code.MODEL_UNKNOWN: Entry("no registered model has this name or version", 404),
    Code.IMAGE_UNKNOWN: Entry("no image has this name, version or digest", 404),
    Code.DEPLOYMENT_UNKNOWN: Entry("no deployment has this id", 404),
    Code.PROFILE_UNKNOWN: Entry("no device profile has this name", 404),
    Code.BLOB_UNKNOWN: Entry("no stored file has this digest", 404),
    Code.DEVICE_EXISTS: Entry("a device with this id is already enrolled", 409),
    Code.DEPLOYMENT_EXISTS: Entry("a deployment with this id exists with other content", 409),
    Code.IN_USE: Entry("something still uses what should be removed", 409),
    Code.STATE_CONFLICT: Entry("the thing is in a state that does not allow this", 409),
    Code.ALREADY_ENROLLED: Entry("this agent already has an identity", 409),
    Code.NOT_ENROLLED: Entry("this agent has no identity yet", 409),
    Code.TOKEN_INVALID: Entry("an access token is missing, wrong or expired", 401),
    Code.FORBIDDEN: Entry("the caller is known but may not do this", 403),
    Code.CLAIM_INVALID: Entry("a claim token is wrong, used or expired", 403),
    Code.CERTIFICATE_INVALID: Entry("a certificate is missing, foreign, expired or revoked", 403),
    Code.SIGNATURE_INVALID: Entry("a signed document does not verify", 403),
    Code.VERSION_ROLLED_BACK: Entry("a signed document is older than one already accepted", 409),
    Code.DOCUMENT_EXPIRED: Entry("a signed document has expired", 409),
    Code.HUB_UNREACHABLE: _later("the hub does not answer"),
    Code.BROKER_UNREACHABLE: _later("the MQTT broker does not answer"),
    Code.REGISTRY_UNREACHABLE: _later("the image registry does not answer"),
    Code.REGISTRY_REFUSED: Entry("the image registry refused the request", 502),
    Code.DATABASE_UNAVAILABLE: _later("the database does not answer"),
    Code.DATABASE_CORRUPT: Entry("the database file is damaged", 500),
    Code.DATABASE_NEWER: Entry("the database was written by a newer version", 500),
    Code.PORT_IN_USE: Entry("another program listens on this port", 500),
    Code.DISK_FULL: _later("there is no space left on the disk", 507),
    Code.BUSY: _later("too much work is waiting", 503),
    Code.BUILD_FAILED: Entry("an image could not be built", 422),
    Code.DEPENDENCY_UNSATISFIABLE: Entry("no wheels satisfy the dependencies", 422),
    Code.BASE_UNAVAILABLE: Entry("the base image cannot be made or found", 422),
    Code.IMAGE_UNAVAILABLE: _later("an image could not be pulled"),
    Code.IMAGE_UNSUITABLE: Entry("an image does not fit the machine that should run it", 422),
    Code.RUNTIME_UNAVAILABLE: _later("the container engine does not answer"),
    Code.INTERPRETER_MISSING: Entry("the Python version an image needs is not on the device", 422),
    Code.MODULE_START_FAILED: Entry("a module did not start", 422),
    Code.PROBE_FAILED: Entry("a module did not answer its probe in time", 422),
    Code.GOLDEN_MISMATCH: Entry("a module answered its golden samples wrongly", 422),
    Code.DEVICE_SILENT: _later("a device has not been heard of for longer than allowed", 504),
    Code.INTERNAL: Entry("a defect in Rimward itself", 500, 70),
}


class FleetError(Exception):
    """Base of every error raised on purpose.

    Args:
        message: What happened: lower-case, no full stop, the thing named in quotes.
        code: Which of the catalogue's rows this is.
        hint: What to do about it, commands in backticks.
    """

    def __init__(self, message: str, *, code: Code, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint

    @property
    def entry(self) -> Entry:
        """The catalogue's row for this error."""
        return CATALOGUE[self.code]

    @property
    def retryable(self) -> bool:
        """Whether the same call may work later."""
        return self.entry.retryable


class InvalidError(FleetError):
    """Something sent to us is wrong; sending it again will not help."""


class NotFoundError(FleetError):
    """The thing named does not exist."""


class ConflictError(FleetError):
    """The thing exists, but not in a state that allows this."""


class DeniedError(FleetError):
    """The caller may not, or a signature does not hold."""


class UnavailableError(FleetError):
    """A part outside this process failed; it may work later."""


class DeviceError(FleetError):
    """Something on the device went wrong while doing what the manifest asks."""
