"""Which images of an engine this agent has verified and made durable.

An engine that lost power during a pull lists a broken image as if it were whole, and a second pull
repairs nothing. So only what is recorded here counts, and a pull that a reboot interrupted is
removed before it is tried again.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from agent.adapters.durable_files import write_atomically
from agent.adapters.images.store import boot_id


class _Record(msgspec.Struct, rename="camel"):
    whole: dict[str, str] = {}
    pending: dict[str, str] = {}


class DockerImages:
    """The record, in one file. Methods block.

    Args:
        path: The file; its folder is made if missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._record = self._load()

    def whole(self) -> dict[str, str]:
        """Return the names of whole images, by digest."""
        return dict(self._record.whole)

    def begin(self, digest: str) -> bool:
        """Note that a pull begins; tell whether a reboot interrupted the one before."""
        before = self._record.pending.get(digest)
        self._record.pending[digest] = boot_id()
        self._save()
        return before is not None and before != boot_id()

    def finish(self, digest: str, name: str) -> None:
        """Note that an image is verified and durable."""
        self._record.pending.pop(digest, None)
        self._record.whole[digest] = name
        self._save()

    def forget(self, digest: str) -> None:
        """Note that an image is about to go."""
        self._record.pending.pop(digest, None)
        self._record.whole.pop(digest, None)
        self._save()

    def _load(self) -> _Record:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_Record)
        except (FileNotFoundError, msgspec.DecodeError):
            return _Record()

    def _save(self) -> None:
        write_atomically(self._path, msgspec.json.encode(self._record))
