"""When a certificate is renewed. Decides on times alone; the adapters hold keys and files."""

from __future__ import annotations

from datetime import datetime


def renewal_due(not_before: datetime, not_after: datetime, now: datetime) -> bool:
    """Tell whether a certificate is at or past half its life; expired ones are due, too."""
    return now >= not_before + (not_after - not_before) / 2
