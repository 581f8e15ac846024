"""Files other programs read: the newest report, and the ledger of acknowledged messages."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec


class StatusFile:
    """Keeps the newest report in a file, replaced whole, for `rimward-agent list`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, reported: dict[str, Any]) -> None:
        """Replace the content; not synced, it is made again at every start."""
        aside = self._path.with_suffix(".new")
        aside.write_bytes(msgspec.json.encode(reported))
        aside.replace(self._path)

    def read(self) -> dict[str, Any] | None:
        """Return the newest report, or None before the first."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, Any])
        except (OSError, msgspec.DecodeError):
            return None


class Ledger:
    """Appends a line `epoch first last` for every range of messages the hub acknowledged."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def acknowledged(self, epoch: str, ranges: Sequence[tuple[int, int]]) -> None:
        """Write the ranges in one system call, so that a kill leaves no half line."""
        lines = "".join(f"{epoch} {first} {last}\n" for first, last in ranges)
        os.write(self._descriptor, lines.encode())
