"""The port to what scores: a user's entry script, or a model served without one."""

from typing import Protocol

from ..exchange import ScoreRequest


class Scorer(Protocol):
    """Scores one request at a time, always from the same thread."""

    @property
    def raw_http(self) -> bool:
        """Whether every method of /score is handed on, OPTIONS and HEAD too."""

    def init(self) -> None:
        """Get ready, once. Raises StartupError if that is impossible."""

    def read(self, request: ScoreRequest) -> dict[str, object]:
        """Return the arguments of run(), or raise BadInputError."""

    def run(self, arguments: dict[str, object]) -> object:
        """Return the result for arguments of read(). May raise anything the user's code raises."""

    def describe(self) -> dict[str, object]:
        """Return what /metadata says of the model: engine, inputs, outputs."""
