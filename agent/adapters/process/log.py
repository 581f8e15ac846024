"""What modules write: appended to a file by themselves, bounded by copying and truncating.

The module holds the file open and outlives the agent, so the file is never replaced under it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_LIMIT = 5 * 1024 * 1024
_TAIL_BYTES = 512 * 1024


def bound_log(path: Path, *, limit_bytes: int = _LIMIT) -> None:
    """Move a log that grew beyond the limit to `<name>.1`; lines written meanwhile may be lost."""
    if not path.exists() or path.stat().st_size <= limit_bytes:
        return
    shutil.copyfile(path, path.with_name(f"{path.name}.1"))
    os.truncate(path, 0)


def read_tail(path: Path, lines: int) -> str:
    """Return the last lines of a log, the rotated part included; empty when there is none."""
    text = b""
    for part in (path.with_name(f"{path.name}.1"), path):
        if part.exists():
            with part.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
                text += file.read(_TAIL_BYTES)
    kept = text.decode("utf-8", errors="replace").splitlines(keepends=True)
    return "".join(kept[-lines:]) if lines > 0 else ""
