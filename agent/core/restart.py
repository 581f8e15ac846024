"""When a module that ended may start again. Pure; remembers what it is told.

Delays are IoT Edge's: 10 s x 2^n up to 300 s, forgotten after ten minutes of running; but it never
gives up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from agent.core.plan import Instance, ModuleSpec

CEILING_SECONDS = 300.0
RESET_AFTER = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Record:
    """The restarts of one instance: how many, and when it was last seen to have ended."""

    count: int = 0
    ended_at: datetime | None = None


@dataclass(slots=True)
class Restarts:
    """What is known of the instances that ended.

    Attributes:
        first_seconds: Delay before the first restart.
    """

    first_seconds: float = 10.0
    _records: dict[str, Record] = field(default_factory=dict)

    def count(self, instance_id: str) -> int:
        """Return how often an instance was restarted."""
        return self._records.get(instance_id, Record()).count

    def delay_seconds(self, instance_id: str) -> float:
        """Return how long an ended instance rests before it starts again."""
        return float(
            min(CEILING_SECONDS, self.first_seconds * 2.0 ** min(self.count(instance_id), 16))
        )

    def may_start(self, spec: ModuleSpec, ended: Instance | None, now: datetime) -> bool:
        """Tell whether an instance that is not running shall be started now.

        Args:
            spec: What shall run.
            ended: Its instance, when it is still there; None when it never started or was removed.
            now: The present moment.
        """
        if ended is not None and not restarts_after(spec, ended):
            return False
        record = self._records.get(spec.instance_id, Record())
        if record.ended_at is None:
            return ended is None  # `saw_end` comes first: it starts the clock
        elapsed = (now - record.ended_at).total_seconds()
        return elapsed < 0 or elapsed >= self.delay_seconds(spec.instance_id)

    def saw_end(self, instance_id: str, now: datetime) -> None:
        """Note that an instance is seen ended or did not start; the first time starts its delay."""
        record = self._records.get(instance_id, Record())
        if record.ended_at is None:
            self._records[instance_id] = Record(record.count, now)

    def started(self, instance_id: str) -> None:
        """Note that an ended instance was started again."""
        record = self._records.get(instance_id)
        if record and record.ended_at is not None:
            self._records[instance_id] = Record(record.count + 1, None)

    def saw_running(self, instance_id: str, for_: timedelta) -> None:
        """Forget the restarts of an instance that has run long enough."""
        if for_ >= RESET_AFTER:
            self._records.pop(instance_id, None)

    def keep_only(self, instance_ids: set[str]) -> None:
        """Forget instances that are no longer wanted."""
        for gone in self._records.keys() - instance_ids:
            del self._records[gone]


def restarts_after(spec: ModuleSpec, ended: Instance) -> bool:
    """Tell whether a module's policy starts it again after the way it ended."""
    if spec.restart_policy in ("on-failure", "on-unhealthy"):
        return ended.exit_code != 0
    return spec.restart_policy == "always"
