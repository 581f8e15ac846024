"""`rimward` and `python -m hub`: run the command line, render errors, choose exit codes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from hub.cli.client import HubClient, load_context
from hub.cli.main import Builders, create_cli
from hub.settings import VERSION, context_path, is_debugging, read_settings
from protocol.errors import Code, FleetError


def _client() -> HubClient:
    return HubClient(load_context(context_path()))


def _serve(options: Mapping[str, str]) -> None:
    settings = read_settings(options=options)
    from hub import logs, server  # noqa: PLC0415 - only the hub itself pays for its imports

    logs.configure(settings.log_level)
    server.serve(settings)


def _write_broker(options: Mapping[str, str], folder: Path, port: int) -> Path:
    settings = read_settings(options=options)
    from hub.bootstrap import write_broker  # noqa: PLC0415 - as above

    return write_broker(settings, folder.absolute(), port)


def _demo(root: typer.Typer) -> None:
    @root.command()
    def demo(
        *,
        keep: Annotated[bool, typer.Option(help="Leave hub and devices running.")] = False,
        summary: Annotated[
            Path, typer.Option(help="File for everything that is shown, as JSON.")
        ] = Path("demo-summary.json"),
    ) -> None:
        """Run the main job from end to end on real input: about a minute.

        A hub, a trained model, an image, 23 devices, a kill, a cut cable, a bad second version.
        Exits with 0 only if everything happened. Example: rimward demo --keep
        """
        from hub.demo.command import tell  # noqa: PLC0415 - as above

        tell(summary, keep=keep)


def main() -> None:
    """Run the command line."""
    cli = create_cli(Builders(_client, _serve, _write_broker, _demo, VERSION))
    try:
        cli()
    except FleetError as error:
        _show(error)
        sys.exit(error.entry.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)  # the reader of our output left
    except Exception as error:  # everything else is our bug: say so in one sentence
        if is_debugging():
            raise
        _show(
            FleetError(
                f"a defect in Rimward: {type(error).__name__}: {error}",
                code=Code.INTERNAL,
                hint="run it again with RIMWARD_LOG_LEVEL=debug and report what it prints",
            )
        )
        sys.exit(70)


def _show(error: FleetError) -> None:
    typer.secho(f"error[{error.code}]: {error}", fg="red", err=True)
    if error.hint:
        typer.secho(f"hint: {error.hint}", fg="cyan", err=True)


if __name__ == "__main__":
    main()
