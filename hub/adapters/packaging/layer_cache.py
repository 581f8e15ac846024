"""Finished layers kept on the disk, so what did not change is not made again.

Decides what is kept: the most recently used, up to a number of bytes. An entry is there only when
it is whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hub.core.packaging import Layer, LayerKind
from protocol.ids import Digest

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class LayerCache:
    """Layers in a folder, each under a key of hexadecimal digits."""

    root: Path
    limit_bytes: int = 8 * GIB

    def obtain(self, key: str, make: Callable[[Path], Layer]) -> tuple[Layer, Path]:
        """Return the layer of a key and its file; made by `make` when it is not there.

        `make` is given the path of a file it creates. Two callers may make the same layer at the
        same time; as equal keys give equal bytes, either may win.
        """
        kept = self.find(key)
        if kept is not None:
            return kept, self._path(key)
        self.root.mkdir(parents=True, exist_ok=True)
        partial = self.root / f"{key}.{secrets.token_hex(8)}.partial"
        try:
            layer = make(partial)
            partial.replace(self._path(key))
        finally:
            partial.unlink(missing_ok=True)
        self._remember(key, layer)
        self._shrink(keep=key)
        return layer, self._path(key)

    def find(self, key: str) -> Layer | None:
        """Return the layer of a key, or None."""
        try:
            raw = json.loads(self._notes(key).read_bytes())
            layer = Layer(
                kind=LayerKind(raw["kind"]),
                digest=Digest(raw["digest"]),
                size=raw["size"],
                diff_id=Digest(raw["diff_id"]),
                compressed=raw["compressed"],
            )
            whole = self._path(key).stat().st_size == layer.size
        except (OSError, ValueError, KeyError):
            return None
        if not whole:
            return None
        with contextlib.suppress(OSError):
            os.utime(self._path(key))
        return layer

    def forget(self, key: str) -> None:
        """Remove a layer, so that it is made again."""
        self._notes(key).unlink(missing_ok=True)
        self._path(key).unlink(missing_ok=True)

    def _remember(self, key: str, layer: Layer) -> None:
        notes = {
            "kind": layer.kind.value,
            "digest": layer.digest,
            "size": layer.size,
            "diff_id": layer.diff_id,
            "compressed": layer.compressed,
        }
        partial = self._notes(key).with_suffix(f".{secrets.token_hex(8)}.partial")
        partial.write_text(json.dumps(notes))
        partial.replace(self._notes(key))

    def _shrink(self, *, keep: str) -> None:
        found: list[tuple[float, int, Path]] = []
        for path in self.root.glob("*.layer"):
            with contextlib.suppress(FileNotFoundError):
                state = path.stat()
                found.append((state.st_mtime, state.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.limit_bytes:
                break
            if path != self._path(keep):
                self.forget(path.stem)
                total -= size

    def _path(self, key: str) -> Path:
        return self.root / f"{key}.layer"

    def _notes(self, key: str) -> Path:
        return self.root / f"{key}.json"
