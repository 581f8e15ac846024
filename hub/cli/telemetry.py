"""`rimward telemetry`: tail, stats, score."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from hub.cli.client import HubClient
from hub.cli.models import read_json
from hub.cli.options import OutputOption, pause
from hub.cli.render import Output, plain, show

_POLL_SECONDS = 0.5


class Group(StrEnum):
    """What answers are gathered by."""

    DEVICE = "device"
    PROFILE = "profile"


def commands(hub: Callable[[], HubClient]) -> typer.Typer:
    """Return the commands."""
    app = typer.Typer(no_args_is_help=True, help="Read what devices sent.")

    @app.command()
    def tail(
        *,
        device: Annotated[str | None, typer.Option(help="Only this device.")] = None,
        module: Annotated[str | None, typer.Option(help="Only this module.")] = None,
        lines: Annotated[
            int, typer.Option("--lines", "-n", help="How many.", min=1, max=1000)
        ] = 10,
        follow: Annotated[
            bool, typer.Option("--follow", "-f", help="Go on as more arrives.")
        ] = False,
        output: OutputOption = Output.TABLE,
    ) -> None:
        """Show the newest records, one a line."""
        client, wanted = hub(), {"device": device, "module": module}
        rows = client.get("/api/v1/telemetry", **wanted, limit=lines, newest=True)
        last = 0
        while True:
            for row in rows:
                _print(row, output)
                last = row["id"]
            if not follow:
                return
            pause(_POLL_SECONDS)
            rows = client.get("/api/v1/telemetry", **wanted, after=last, limit=1000)

    @app.command()
    def stats(*, output: OutputOption = Output.TABLE) -> None:
        """Count what is stored."""
        found = hub().get("/api/v1/telemetry/stats")
        show(found, output, lambda: _stats(found))

    @app.command()
    def score(
        truth: Annotated[Path, typer.Argument(help='JSON file: {"input name": true label}.')],
        *,
        by: Annotated[Group, typer.Option(help="What a row is.")] = Group.DEVICE,
        module: Annotated[str | None, typer.Option(help="Only this module.")] = None,
        key: Annotated[str, typer.Option(help="Where the label stands in an answer.")] = "label",
        output: OutputOption = Output.TABLE,
    ) -> None:
        """Judge the answers that arrived against true labels.

        Inputs are named by their files without the ending. Example: rimward telemetry score t.json
        """
        body = {"truth": read_json(truth), "by": by.value, "module": module, "key": key}
        found = hub().post("/api/v1/telemetry/score", body)
        show(found, output, lambda: _scores(found, by.value))

    return app


def _print(row: dict[str, Any], output: Output) -> None:
    if output is Output.JSON:
        print(json.dumps(row))  # noqa: T201 - stdout belongs to data
        return
    body = row["body"] if row["body"] is not None else f"({row['data']})"
    if "error" in row["properties"]:
        body = f"failed: {row['properties']['error']} {body}"
    line = f"{row['receivedAt'][:19]} {row['device']} {row['module']}/{row['output']} {body}"
    print(plain(line))  # noqa: T201 - as above


def _stats(found: dict[str, Any]) -> list[list[str]]:
    rows = [[device, str(count)] for device, count in sorted(found["byDevice"].items())]
    return [["device", "records"], *rows, ["all", str(found["stored"])]]


def _scores(found: dict[str, dict[str, Any]], by: str) -> list[list[str]]:
    rows = [
        [
            group,
            str(s["answered"]),
            str(s["known"]),
            "" if s["accuracy"] is None else f"{s['accuracy']:.1%}",
            "" if s["latencyP50Ms"] is None else f"{s['latencyP50Ms']:.1f}",
            "" if s["latencyP99Ms"] is None else f"{s['latencyP99Ms']:.1f}",
        ]
        for group, s in found.items()
    ]
    return [[by, "answers", "known", "right", "p50 ms", "p99 ms"], *rows]
