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
_RESERVED = 64  # revisions
log = structlog.get_logger()


class Memory:
    """Durable knowledge; every change is synced before it is acted on."""

    def __init__(self, store: StateStore, trust: Trust) -> None:
        self._store = store
        self._trust = trust
        self.good = self._read(_GOOD)
        self.accepted = self._read(_ACCEPTED)
        raw = store.get(_PROGRESS)
        self.progress = self._resumed(msgspec.json.decode(raw, type=Progress) if raw else None)
        self.floor = self._floor()
        self.revision = self._reserved = int(store.get(_REVISION) or 0)
        self.bytes_pulled = int(store.get(_BYTES) or 0)
        if self.good is None and self.progress and self.progress.state is State.DONE:
            self.good = self.accepted  # only the copy is lost: what runs shall go on running

    def _resumed(self, saved: Progress | None) -> Progress | None:
        """Return where the update goes on after a start of the agent, saved if that is possible."""
        if self.accepted is None:
            return None
        target = self.accepted.version
        if saved is not None and saved.target == target:
            resumed = update.resume(saved)
        elif self.good is not None and self.good.version == target:
            resumed = Progress(target.epoch, target.version, State.DONE)
        else:
            resumed = update.begin(target)  # where it stood is lost: every step can be repeated
        if resumed is not saved:
            try:
                self._save(resumed)
            except FleetError as error:
                # A full disk must not keep the agent from looking after what runs.
                log.warning("update.not_saved", code=error.code, why=str(error))
        return resumed

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
        held = self.accepted is not None
        accepted = desired.accept(envelope, self._trust, self.floor, now, held=held)
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
        """Return the revision of the next report; never one used before.

        Revisions are reserved many at once: that spares the disk, and a full one can be reported.

        Raises:
            FleetError: `disk-full`, when more have to be reserved.
        """
        if self.revision >= self._reserved:
            reserved = self.revision + _RESERVED
            self._store.put({_REVISION: str(reserved).encode()})
            self._reserved = reserved
        self.revision += 1
        return self.revision

    def skip_to_revision(self, revision: int) -> None:
        """Go on counting reports after `revision`, which the hub has seen."""
        self.revision = revision

    def count_bytes(self, received: int) -> None:
        """Add to the bytes of images pulled in this device's life."""
        self.bytes_pulled += received
        self._store.put({_BYTES: str(self.bytes_pulled).encode()})
