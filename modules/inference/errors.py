"""Every failure the server can name: at start (ends the process) and at a request (400, 415).

A start-up failure has a stable code, a sentence and a hint. Failures of the user's script are not
here: they are answered with one fixed sentence and go to the log.
"""

from enum import StrEnum


class StartupCode(StrEnum):
    """Stable identifiers; supervisors and documentation rely on them."""

    SETTING_INVALID = "setting-invalid"
    MODEL_DIR_MISSING = "model-dir-missing"
    MODEL_UNCLEAR = "model-unclear"
    MODEL_INVALID = "model-invalid"
    ENTRY_SCRIPT_MISSING = "entry-script-missing"
    ENTRY_SCRIPT_INVALID = "entry-script-invalid"
    INIT_FAILED = "init-failed"
    GOLDEN_FILE_INVALID = "golden-file-invalid"
    PORT_IN_USE = "port-in-use"
    ADDRESS_UNUSABLE = "address-unusable"


class StartupError(Exception):
    """The server cannot serve; the process ends with exit code 1."""

    def __init__(self, code: StartupCode, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


class BadInputError(Exception):
    """The request is wrong; its text is the answer's `message`, with `status`."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.status = status
