"""How results look: tables for people, JSON for programs. Data on stdout, talk on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any


class Output(StrEnum):
    """Form of what a command prints."""

    TABLE = "table"
    JSON = "json"


def show(data: Any, output: Output, table: Callable[[], Sequence[Sequence[str]]]) -> None:
    """Print `data` as JSON, or as the table that `table` makes: a row of heads, then rows."""
    if output is Output.JSON:
        print(json.dumps(data, indent=2))  # noqa: T201 - stdout belongs to data
        return
    from rich.console import Console  # noqa: PLC0415 - not for --help
    from rich.table import Table  # noqa: PLC0415

    heads, *rows = table()
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        drawn.add_column(head, overflow="fold")
    for row in rows:
        drawn.add_row(*map(plain, row))
    # A pipe has no width: lines must not be folded for the next program.
    width = None if sys.stdout.isatty() else 1000
    Console(width=width, markup=False, emoji=False, highlight=False).print(drawn)


def plain(text: str) -> str:
    """Return text as it may go to a terminal: what devices send can carry control characters."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def facts(pairs: dict[str, Any]) -> list[list[str]]:
    """Return a table of one thing: a row per field."""
    return [["field", "value"], *([key, _text(value)] for key, value in pairs.items())]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def size(count: int) -> str:
    """Return a number of bytes for people."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:  # noqa: PLR2004 - SI
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def say(text: str) -> None:
    """Tell the person something, on stderr."""
    print(plain(text), file=sys.stderr)  # noqa: T201 - the one place that talks


@contextmanager
def transfer(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar for bytes on stderr; nothing where stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield lambda _count: None
        return
    from rich.console import Console  # noqa: PLC0415 - not for --help
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=total or None)
        yield lambda count: progress.advance(task, count)
