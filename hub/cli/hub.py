"""`rimward hub`: run a hub, and prepare what stands beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from hub.cli.render import say

Serve = Callable[[Mapping[str, str]], None]
WriteBroker = Callable[[Mapping[str, str], Path, int], Path]


def commands(serve: Serve, write_broker: WriteBroker) -> typer.Typer:
    """Return the commands.

    Args:
        serve: Runs a hub with these options until it is told to stop.
        write_broker: Writes a Mosquitto configuration for this hub into a folder.
    """
    app = typer.Typer(no_args_is_help=True, help="Run a hub.")

    @app.command()
    def up(
        *,
        data: Annotated[Path | None, typer.Option(help="Folder of everything it keeps.")] = None,
        host: Annotated[str, typer.Option(help="Address to listen on.")] = "",
        https_port: Annotated[str, typer.Option(help="HTTPS port; 0 for a free one.")] = "",
        mqtt_port: Annotated[str, typer.Option(help="MQTT port; 0 for a free one.")] = "",
        advertise: Annotated[str, typer.Option(help="Name devices reach it by.")] = "",
        database: Annotated[str, typer.Option(help="SQLAlchemy URL; empty for SQLite.")] = "",
        broker: Annotated[str, typer.Option(help="mqtts://host:port of an external broker.")] = "",
        registry: Annotated[
            str, typer.Option(help="https://host:port; see RIMWARD_REGISTRY.")
        ] = "",
        registry_ca: Annotated[str, typer.Option(help="PEM of that registry's CA.")] = "",
    ) -> None:
        """Run a hub until Ctrl-C. The first start makes its keys and the first access token.

        Example: rimward hub up --host 0.0.0.0 --advertise hub.plant-7.example
        """
        serve(
            {
                "DATA": str(data) if data else "",
                "HOST": host,
                "HTTPS_PORT": https_port,
                "MQTT_PORT": mqtt_port,
                "ADVERTISE": advertise,
                "DATABASE": database,
                "BROKER": broker,
                "REGISTRY": registry,
                "REGISTRY_CA": registry_ca,
            }
        )

    @app.command("broker-config")
    def broker_config(
        folder: Annotated[Path, typer.Argument(help="Folder to write to.")],
        *,
        data: Annotated[Path | None, typer.Option(help="The hub's data folder.")] = None,
        host: Annotated[str, typer.Option(help="Name devices reach the broker by.")] = "",
        port: Annotated[int, typer.Option(help="Port of the broker.", min=1, max=65535)] = 8883,
    ) -> None:
        """Write a Mosquitto configuration with certificates and access rules for this hub.

        Example: rimward hub broker-config /etc/mosquitto/rimward --host broker.plant-7.example
        """
        options = {"DATA": str(data) if data else "", "ADVERTISE": host}
        path = write_broker(options, folder, port)
        say(f"wrote {path}; start it with `mosquitto -c {path}`")
        say(f"then the hub with `rimward hub up --broker mqtts://{host or '127.0.0.1'}:{port}`")

    return app
