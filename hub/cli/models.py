"""`rimward model`: register, list, show, download."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from hub.cli.client import HubClient, segment
from hub.cli.options import OutputOption, pairs
from hub.cli.render import Output, facts, say, show, size, transfer
from protocol.errors import Code, InvalidError


def commands(hub: Callable[[], HubClient]) -> typer.Typer:
    """Return the commands."""
    app = typer.Typer(no_args_is_help=True, help="Register and look at models.")

    @app.command()
    def register(
        name: Annotated[str, typer.Option("--name", "-n", help="Name of the model.")],
        path: Annotated[Path, typer.Option("--path", "-p", help="The model's file.")],
        *,
        framework: Annotated[str, typer.Option(help="For example onnx.")] = "",
        description: Annotated[str, typer.Option(help="A line for people.")] = "",
        tag: Annotated[list[str] | None, typer.Option(help="key=value, repeatable.")] = None,
        golden: Annotated[
            Path | None,
            typer.Option(help="JSON file of golden samples: inputs with known answers."),
        ] = None,
        output: OutputOption = Output.TABLE,
    ) -> None:
        """Make the next version of a model.

        Example: rimward model register -n digits -p model.onnx --golden golden.json
        """
        file = _file(path)
        body = {
            "name": name,
            "filename": path.name,
            "framework": framework,
            "description": description,
            "tags": pairs(tag),
            "golden": read_json(golden) if golden else None,
        }
        client = hub()
        with file.open("rb") as stream, transfer(path.name, file.stat().st_size) as moved:
            digest = client.upload(stream, moved)
        model = client.post("/api/v1/models", {**body, "digest": digest})
        say(f"registered {model['name']}:{model['version']}")
        show(model, output, lambda: facts(model))

    @app.command("list")
    def list_(
        name: Annotated[str | None, typer.Argument(help="Only this model.")] = None,
        *,
        output: OutputOption = Output.TABLE,
    ) -> None:
        """List models and their versions."""
        models = hub().get("/api/v1/models", name=name)
        show(models, output, lambda: _table(models))

    @app.command("show")
    def show_(
        ref: Annotated[str, typer.Argument(help="name:version, or name for the newest.")],
        *,
        output: OutputOption = Output.TABLE,
    ) -> None:
        """Show one model."""
        model = hub().get(f"/api/v1/models/{segment(ref)}")
        show(model, output, lambda: facts(model))

    @app.command()
    def download(
        ref: Annotated[str, typer.Argument(help="name:version, or name for the newest.")],
        target: Annotated[Path | None, typer.Argument(help="File to write.")] = None,
    ) -> None:
        """Download the file of a model and check its digest."""
        client = hub()
        model = client.get(f"/api/v1/models/{segment(ref)}")
        path = target or Path(model["filename"])
        with transfer(path.name, model["size"]) as moved:
            client.download(
                f"/api/v1/models/{model['name']}:{model['version']}/content",
                path,
                lambda piece, _total: moved(piece),
            )
        say(f"wrote {path} ({size(model['size'])})")

    return app


def _table(models: list[dict[str, Any]]) -> list[list[str]]:
    rows = [
        [
            f"{m['name']}:{m['version']}",
            m["framework"],
            size(m["size"]),
            str(m["goldenSamples"]),
            m["createdAt"][:19],
            m["digest"][:19],
        ]
        for m in models
    ]
    return [["model", "framework", "size", "golden samples", "registered", "digest"], *rows]


def _file(path: Path) -> Path:
    if not path.is_file():
        raise InvalidError(f"no file {str(path)!r}", code=Code.FILE_MISSING, hint="check the path")
    if not os.access(path, os.R_OK):
        raise InvalidError(
            f"file {str(path)!r} may not be read",
            code=Code.FILE_MISSING,
            hint="check its permissions",
        )
    return path


def read_json(path: Path) -> Any:
    """Return the JSON in a file, or raise InvalidError (`file-missing`, `request-invalid`)."""
    try:
        return json.loads(_file(path).read_text())
    except ValueError as error:
        raise InvalidError(
            f"{str(path)!r} is not valid JSON: {error}",
            code=Code.REQUEST_INVALID,
            hint="check it with a JSON linter",
        ) from error
