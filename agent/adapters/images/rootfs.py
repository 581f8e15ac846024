"""Puts unpacked layers together into one folder, with hard links instead of copies.

Decides what a whiteout removes and which layer wins; checks that no link of the result leads
outside it. The files are shared between images and must never be written.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from protocol.errors import Code, DeviceError

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


def assemble(layers: Sequence[Path], target: Path) -> None:
    """Fill the new folder `target` from unpacked layers, lowest first.

    Raises:
        DeviceError: `image-unsuitable`, when a symbolic link leads outside.
    """
    target.mkdir(mode=0o755)
    links: list[Path] = []
    for layer in layers:
        _lay(layer, target, links)
    inside = os.path.realpath(target)
    for link in links:
        if link.is_symlink() and not contains(inside, os.path.realpath(link)):
            raise DeviceError(
                f"the link {link.name[:80]!r} of the image leads outside it",
                code=Code.IMAGE_UNSUITABLE,
                hint="build the image again, and do not trust this one",
            )


def contains(folder: str, path: str) -> bool:
    """Tell whether `path` is `folder` or below it; both real and absolute."""
    return path == folder or path.startswith(folder + os.sep)


def locate(root: Path, inner: str) -> Path | None:
    """Return where a path of the image lies on the host, or None when the image does not have it.

    Args:
        root: Folder the image was assembled in.
        inner: Path as seen inside the image.
    """
    normal = os.path.normpath("/" + inner).lstrip("/")
    path = root / normal
    if not contains(os.path.realpath(root), os.path.realpath(path)) or not path.exists():
        return None
    return path


def _lay(layer: Path, target: Path, links: list[Path]) -> None:
    with os.scandir(layer) as scan:
        entries = sorted(scan, key=lambda entry: not entry.name.startswith(_WHITEOUT))
    for entry in entries:
        path = target / entry.name
        if entry.name == _OPAQUE:
            for lower in list(target.iterdir()):
                _remove(lower)
        elif entry.name.startswith(_WHITEOUT):
            _white_out(target, entry.name.removeprefix(_WHITEOUT))
        elif entry.is_dir(follow_symlinks=False):
            if path.is_symlink() or not path.is_dir():
                _remove(path)
                path.mkdir(mode=0o755)
            _lay(Path(entry.path), path, links)
        else:
            _remove(path)
            os.link(entry.path, path, follow_symlinks=False)
            if entry.is_symlink():
                links.append(path)


def _white_out(folder: Path, name: str) -> None:
    if name not in ("", ".", ".."):
        _remove(folder / name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
