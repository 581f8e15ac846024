from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.backoff import Backoff
from agent.core.renewal import renewal_due


def seeded(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - spreads delays, guards nothing


@given(attempt=st.integers(0, 10**9), seed=st.integers(0, 2**32))
def test_a_delay_stays_within_its_bounds_however_long_the_outage(attempt: int, seed: int) -> None:
    assert 1.0 <= Backoff().delay(attempt, seeded(seed)) <= 60.0


@given(attempt=st.integers(0, 4), seed=st.integers(0, 2**32))
def test_a_later_attempt_never_waits_less_until_the_ceiling(attempt: int, seed: int) -> None:
    backoff = Backoff()

    assert backoff.delay(attempt, seeded(seed)) <= backoff.delay(attempt + 1, seeded(seed))


def test_devices_do_not_come_back_together() -> None:
    delays = {Backoff().delay(0, seeded(seed)) for seed in range(100)}

    assert len(delays) == 100


START = datetime(2030, 1, 1, tzinfo=UTC)
END = START + timedelta(days=7)


@pytest.mark.parametrize(
    ("moment", "due"),
    [
        (START - timedelta(days=400), False),
        (START, False),
        (START + timedelta(days=3.5) - timedelta(seconds=1), False),
        (START + timedelta(days=3.5), True),
        (END + timedelta(days=400), True),
    ],
)
def test_a_certificate_is_renewed_from_half_its_life_on(moment: datetime, *, due: bool) -> None:
    assert renewal_due(START, END, moment) is due
