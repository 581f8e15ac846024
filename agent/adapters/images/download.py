"""One blob on its way into a file: what is there, what is missing, whether it is right.

Decides when bytes left by an earlier life of the agent are trusted (never before the digest of the
whole matches); knows no network.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from agent.adapters.images.documents import Descriptor
from protocol.errors import Code, InvalidError
from protocol.ids import Digest

CHUNK = 1024 * 1024


@dataclass(slots=True)
class Download:
    """A blob on its way to a file; survives cut connections and restarts of the agent."""

    descriptor: Descriptor
    path: Path
    offset: int = 0
    resumed: bool = False
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    @property
    def missing(self) -> int:
        """Bytes still to come."""
        return self.descriptor.size - self.offset

    def open(self) -> BinaryIO:
        """Open the file for appending; read what an earlier life left on the first call."""
        file = self.path.open("a+b")
        length = file.tell()
        if length > self.descriptor.size or length < self.offset:
            self.restart(file)
        elif length != self.offset:
            self.restart(file, truncate=False)
            self.resumed = True
            file.seek(0)
            while piece := file.read(CHUNK):
                self._hash.update(piece)
                self.offset += len(piece)
        return file

    def restart(self, file: BinaryIO, *, truncate: bool = True) -> None:
        """Forget what was received."""
        if truncate:
            file.truncate(0)
        self.offset = 0
        self.resumed = False
        self._hash = hashlib.sha256()

    def add(self, file: BinaryIO, piece: bytes) -> None:
        """Append received bytes.

        Raises:
            InvalidError: `digest-mismatch`, when there are more than announced.
        """
        if len(piece) > self.missing:
            file.truncate(0)
            raise mismatch(self.descriptor.address)
        file.write(piece)
        self._hash.update(piece)
        self.offset += len(piece)

    def finish(self, file: BinaryIO) -> bool:
        """Tell whether the file is right; begin again if only an older part of it can be wrong.

        Raises:
            InvalidError: `digest-mismatch`; the file is gone then.
        """
        file.flush()
        if f"sha256:{self._hash.hexdigest()}" == self.descriptor.digest:
            return True
        if not self.resumed:
            self.path.unlink(missing_ok=True)
            raise mismatch(self.descriptor.address)
        self.restart(file)
        return False


def verify(raw: bytes, digest: Digest) -> None:
    """Refuse bytes that do not have this digest.

    Raises:
        InvalidError: `digest-mismatch`.
    """
    if f"sha256:{hashlib.sha256(raw).hexdigest()}" != digest:
        raise mismatch(digest)


def mismatch(digest: Digest) -> InvalidError:
    """Return the error for bytes that are not what their digest says."""
    return InvalidError(
        f"the registry's bytes are not {digest!r}",
        code=Code.DIGEST_MISMATCH,
        hint="the registry or the network altered them: pull again, then push the image again",
    )
