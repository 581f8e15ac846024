"""How long to wait before the next try, as data; whoever retries does the waiting."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

_LARGEST_EXPONENT = 64  # keeps `factor ** attempt` finite however long an outage lasts


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential delays with jitter, so that a fleet does not come back in one moment.

    Attributes:
        first: Shortest delay, in seconds.
        factor: Growth from one attempt to the next.
        ceiling: Longest delay, in seconds.
    """

    first: float = 1.0
    factor: float = 2.0
    ceiling: float = 60.0

    def delay(self, attempt: int, random: Random) -> float:
        """Return the seconds to wait before retry `attempt` (0, 1, 2, ...).

        Drawn evenly between the attempt's delay and the next one's, within [first, ceiling].
        """
        longest = self.first * self.factor ** min(attempt + 1, _LARGEST_EXPONENT)
        top = max(self.first, min(self.ceiling, longest))
        return random.uniform(max(self.first, top / self.factor), top)
