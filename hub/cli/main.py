"""The command tree. Assembled from builders, so that `--help` opens nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated

import typer

from hub.cli import deployments, devices, hub, images, models, telemetry
from hub.cli.client import HubClient


@dataclass(frozen=True, slots=True)
class Builders:
    """What the commands are made of; each is called when a command needs it.

    Attributes:
        client: Makes the connection to the configured hub.
        serve: Runs a hub.
        write_broker: Writes the configuration of an external broker.
        demo: Adds the `demo` command to the tree.
        version: Of this program.
    """

    client: Callable[[], HubClient]
    serve: hub.Serve
    write_broker: hub.WriteBroker
    demo: Callable[[typer.Typer], None]
    version: str


def create_cli(build: Builders) -> typer.Typer:
    """Return the command tree."""
    root = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help="Put machine-learning models on many machines and keep them right.",
    )
    client = cache(build.client)

    @root.callback(invoke_without_command=True)
    def main(
        *, version: Annotated[bool, typer.Option("--version", help="Show it.")] = False
    ) -> None:
        if version:
            typer.echo(build.version)
            raise typer.Exit

    root.add_typer(hub.commands(build.serve, build.write_broker), name="hub")
    root.add_typer(models.commands(client), name="model")
    root.add_typer(images.commands(client), name="image")
    root.add_typer(devices.commands(client), name="device")
    root.add_typer(deployments.commands(client), name="deployment")
    root.add_typer(telemetry.commands(client), name="telemetry")
    build.demo(root)
    return root
