from __future__ import annotations

import asyncio
from datetime import timedelta

from agent_world import START, VirtualClock, run_virtual

from agent.core.renewal import renewal_due
from agent.renewer import Renewer
from protocol.errors import Code, UnavailableError

DAY = 86_400.0
LIFE = timedelta(days=7)
LOOK = 600.0  # how late a renewal may be: the renewer looks now and then


class Certificate:
    """A certificate's validity, and a hub that gives new ones unless it is away."""

    def __init__(self, *, away_until: float = 0.0) -> None:
        self.begin = START
        self.renewed: list[float] = []
        self.asked: list[float] = []
        self._away_until = away_until
        self._clock = VirtualClock()

    def is_due(self) -> bool:
        return renewal_due(self.begin, self.begin + LIFE, self._clock.now())

    async def renew(self) -> None:
        self.asked.append(self._clock.monotonic())
        if self._clock.monotonic() < self._away_until:
            raise UnavailableError("the hub is away", code=Code.HUB_UNREACHABLE)
        self.begin = self._clock.now()
        self.renewed.append(self._clock.monotonic())


def live(certificate: Certificate, days: float) -> None:
    async def story() -> None:
        running = asyncio.create_task(
            Renewer(certificate.is_due, certificate.renew, VirtualClock()).run()
        )
        await asyncio.sleep(days * DAY)
        assert not running.done()
        running.cancel()

    run_virtual(story())


def test_nothing_is_asked_before_half_the_life_is_over() -> None:
    certificate = Certificate()

    live(certificate, 3.4)

    assert certificate.asked == []


def test_a_certificate_is_renewed_at_half_its_life_and_again_at_half_the_next() -> None:
    certificate = Certificate()

    live(certificate, 7.2)

    first, second = certificate.renewed
    assert 3.5 * DAY <= first <= 3.5 * DAY + LOOK
    assert first + 3.5 * DAY <= second <= first + 3.5 * DAY + LOOK
    assert certificate.asked == certificate.renewed


def test_a_hub_that_is_away_is_asked_again_until_it_answers() -> None:
    certificate = Certificate(away_until=5 * DAY)

    live(certificate, 6)

    assert len(certificate.renewed) == 1
    assert 5 * DAY <= certificate.renewed[0] <= 5 * DAY + LOOK
    waits = [b - a for a, b in zip(certificate.asked, certificate.asked[1:], strict=False)]
    assert set(waits) == {LOOK}


def test_an_agent_that_starts_late_renews_at_once() -> None:
    certificate = Certificate()
    certificate.begin = START - timedelta(days=4)

    live(certificate, 0.001)

    assert certificate.renewed == [0.0]
