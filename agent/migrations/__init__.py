"""Numbered schema changes of `agent.db`; each runs once, together with its record, forward only."""

from __future__ import annotations

from importlib.resources import files


def load_migrations() -> list[str]:
    """Return the scripts in order; the n-th (from 1) leads to schema version n."""
    scripts = [item for item in files(__name__).iterdir() if item.name.endswith(".sql")]
    return [item.read_text(encoding="utf-8") for item in sorted(scripts, key=lambda i: i.name)]
