"""What the demo shows while it works: a line per step, a bar where one waits."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn


class Screen:
    """Talks on stderr; draws bars on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._fancy = sys.stderr.isatty()
        self._number = 0

    def say(self, text: str) -> None:
        """Print a remark below the current step."""
        self.console.print(f"    {text}", style="dim", markup=False)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce a step, and its time when it is done."""
        self._number += 1
        started = perf_counter()
        self.console.print(f"[bold]{self._number}. {title}[/bold]")
        yield
        self.console.print(f"   [green]done[/green] in {perf_counter() - started:.1f} s")

    @contextmanager
    def count(self, total: int, unit: str) -> Iterator[Callable[[int], int]]:
        """Show how many of `total` there are; the function given takes and returns the number."""
        if not self._fancy:
            last = [0]

            def note(done: int) -> int:
                last[0] = min(done, total)
                return done

            yield note
            self.say(f"{last[0]} of {total} {unit}")
            return
        columns = (SpinnerColumn(), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task("", total=total)

            def show(done: int) -> int:
                progress.update(task, completed=min(done, total))
                return done

            yield show

    @contextmanager
    def bytes(self, total: int) -> Iterator[Callable[[int], None]]:
        """Show bytes on their way."""
        with self.count(total, "bytes") as show:
            moved = [0]

            def more(count: int) -> None:
                moved[0] += count
                show(moved[0])

            yield more
