"""How a deployment reaches its devices: waves, verdicts, the way back. Pure; time is passed in.

Level-triggered: `decide` looks at where every member stands and says what to do next, so it may be
called as often as one likes and after any restart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from hub.core.deployment import Member, MemberState, RolloutPolicy, Wave
from protocol.errors import Code, InvalidError
from protocol.ids import DeviceId


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Send the deployment to these devices, as wave `wave`."""

    wave: int
    devices: tuple[DeviceId, ...]


@dataclass(frozen=True, slots=True)
class Abort:
    """Take the deployment back from every device."""

    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before something is reported, or before `until`."""

    why: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """Every member has it."""


Decision = Dispatch | Abort | Wait | Done


def decide(policy: RolloutPolicy, members: Sequence[Member], now: datetime) -> Decision:
    """Return the next thing to do for a rolling deployment.

    Failures abort before anything else is looked at; then the current wave must have ended well and
    soaked; then the next wave is taken from the waiting members in order of device id.
    """
    if verdict := _judge(policy, members):
        return verdict
    pending = [m for m in members if m.state is MemberState.DISPATCHED]
    if pending:
        deadline = min(m.since for m in pending) + timedelta(seconds=policy.silent_seconds)
        return Wait(f"{len(pending)} devices have not answered yet", deadline)
    waiting = sorted(m.device_id for m in members if m.state is MemberState.WAITING)
    if not waiting:
        return Done()
    if (until := _soaked_at(policy, members)) is not None and now < until:
        return Wait("the last wave is soaking", until)
    wave = _next_wave(members)
    return Dispatch(wave, tuple(waiting[: _size(policy, wave, len(members), len(waiting))]))


def silent(policy: RolloutPolicy, members: Sequence[Member], now: datetime) -> list[Member]:
    """Return the dispatched members that have said nothing for longer than the policy allows."""
    limit = timedelta(seconds=policy.silent_seconds)
    return [m for m in members if m.state is MemberState.DISPATCHED and now - m.since >= limit]


def _judge(policy: RolloutPolicy, members: Sequence[Member]) -> Abort | None:
    """Abort as soon as a wave can no longer reach its success threshold."""
    for wave in sorted({m.wave for m in members if m.wave is not None}):
        of_wave = [m for m in members if m.wave == wave]
        failed = [m for m in of_wave if m.state is MemberState.FAILED]
        if (len(of_wave) - len(failed)) / len(of_wave) < policy.min_success:
            first = min(failed, key=lambda m: (m.since, m.device_id))
            return Abort(
                f"wave {wave + 1}: {len(failed)} of {len(of_wave)} devices failed, "
                f"first {first.device_id!r}: {first.code}: {first.message}"
            )
    return None


def _soaked_at(policy: RolloutPolicy, members: Sequence[Member]) -> datetime | None:
    ended = [m.since for m in members if m.state is MemberState.SUCCEEDED and m.wave is not None]
    if not ended or not policy.soak_seconds:
        return None
    return max(ended) + timedelta(seconds=policy.soak_seconds)


def _next_wave(members: Sequence[Member]) -> int:
    return max((m.wave for m in members if m.wave is not None), default=-1) + 1


def _size(policy: RolloutPolicy, wave: int, total: int, waiting: int) -> int:
    """Return how many devices wave number `wave` takes; at least one, so that it always ends."""
    if wave >= len(policy.waves):
        return waiting
    limit = policy.waves[wave]
    wanted = limit.count if limit.count is not None else round((limit.share or 0) * total)
    return max(1, min(wanted, waiting))


def parse_waves(text: str) -> tuple[Wave, ...]:
    """Read waves as people write them: `1,10%,50%`; empty means everyone at once.

    Raises:
        InvalidError: `request-invalid`, for anything but counts from 1 and shares up to 100%.
    """
    return tuple(_parse_wave(part.strip()) for part in text.split(",") if part.strip())


def _parse_wave(part: str) -> Wave:
    number = part.removesuffix("%")
    value = int(number) if number.isdecimal() and number.isascii() else 0
    if value < 1 or (part.endswith("%") and value > 100):  # noqa: PLR2004 - per cent
        raise InvalidError(
            f"wave {part!r} is not a count or a percentage",
            code=Code.REQUEST_INVALID,
            hint="write waves like '1,10%,50%'",
        )
    return Wave(share=value / 100) if part.endswith("%") else Wave(count=value)
