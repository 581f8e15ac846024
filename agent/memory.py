"""What the agent knows across restarts: the documents it accepted and where its update stands."""

from __future__ import annotations

from datetime import datetime

import msgspec
import structlog

from agent.core import desired, update
from agent.core.desired import Accepted, Trust, Version
from agent.core.ports import StateStore
from agent.core.update import Outcome, Progress, State
from protocol.errors import FleetError

_PROGRESS = "update"
_ACCEPTED = "desired/accepted"
_GOOD = "desired/good"
_FLOOR = "desired/floor"
_REVISION = "report/revision"
_BYTES = "bytes-pulled"
log = structlog.get_logger()


class Memory:
    """Durable knowledge; every change is synced before it is acted on."""

    def __init__(self, store: StateStore, trust: Trust) -> None:
        self._store = store
        self._trust = trust
        self.good = self._read(_GOOD)
        self.accepted = self._read(_ACCEPTED)
        raw = store.get(_PROGRESS)
        self.progress = msgspec.json.decode(raw, type=Progress) if raw else None
        self.floor = self._floor()
        self.revision = int(store.get(_REVISION) or 0)
        self.bytes_pulled = int(store.get(_BYTES) or 0)
        if self.progress and self.accepted is None:
            self.progress = None
        if self.progress and self.progress.state not in update.TERMINAL:
            self._save(update.resume(self.progress))

    def _read(self, key: str) -> Accepted | None:
        raw = self._store.get(key)
        if raw is None:
            return None
        try:
            return desired.read(raw, self._trust)[1]
        except FleetError as error:
            # It verified when it was stored: the identity changed, or the store was tampered with.
            log.warning("desired.distrusted", document=key, code=error.code, why=str(error))
            return None

    def _floor(self) -> Version:
        raw = self._store.get(_FLOOR)
        return Version(*msgspec.json.decode(raw, type=tuple[int, int])) if raw else Version()

    def _save(self, progress: Progress) -> None:
        self._store.put({_PROGRESS: msgspec.json.encode(progress)})
        self.progress = progress

    def offer(self, envelope: bytes, now: datetime) -> bool:
        """Accept a new desired state and begin its update; False for the one held already.

        Raises:
            FleetError: As `desired.accept`; nothing is changed then.
        """
        accepted = desired.accept(envelope, self._trust, self.floor, now)
        if accepted is None:
            return False
        progress = update.begin(accepted.version)
        floor = (accepted.version.epoch, accepted.version.version)
        self._store.put(
            {
                _ACCEPTED: envelope,
                _FLOOR: msgspec.json.encode(floor),
                _PROGRESS: msgspec.json.encode(progress),
            }
        )
        self.accepted, self.floor, self.progress = accepted, accepted.version, progress
        return True

    def step(self, outcome: Outcome, *, code: str = "", message: str = "") -> Progress:
        """Record how the current step ended and return where the update goes on.

        Committing makes the accepted documents the good ones in the same transaction.
        """
        if self.progress is None:
            raise AssertionError("a step ended although no update is under way")
        moved = update.advance(self.progress, outcome, code=code, message=message)
        if moved.state is State.DONE:
            self._store.put(
                {_PROGRESS: msgspec.json.encode(moved), _GOOD: self._store.get(_ACCEPTED)}
            )
            self.progress, self.good = moved, self.accepted
        elif moved is not self.progress:
            self._save(moved)
        return moved

    def next_revision(self) -> int:
        """Return the revision of the next report; never one used before."""
        self.revision += 1
        self._store.put({_REVISION: str(self.revision).encode()})
        return self.revision

    def skip_to_revision(self, revision: int) -> None:
        """Go on counting reports after `revision`."""
        self.revision = revision
        self._store.put({_REVISION: str(revision).encode()})

    def count_bytes(self, received: int) -> None:
        """Add to the bytes of images pulled in this device's life."""
        self.bytes_pulled += received
        self._store.put({_BYTES: str(self.bytes_pulled).encode()})
