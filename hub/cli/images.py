"""`rimward image`: package models, follow the building."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from hub.cli.client import HubClient, segment
from hub.cli.options import OutputOption, pairs, pause
from hub.cli.render import Output, facts, say, show, size, transfer
from protocol.errors import Code, FleetError, InvalidError

_POLL_SECONDS = 0.2
_SKIPPED = {"__pycache__", ".git", ".venv", ".DS_Store"}
_MAX_SOURCE_BYTES = 100 * 1024 * 1024


class BaseChoice(StrEnum):
    """What an image stands on."""

    DEBIAN = "debian"
    HOST = "host"


class Processor(StrEnum):
    """What an image is made for."""

    AMD64 = "amd64"
    ARM64 = "arm64"


def commands(hub: Callable[[], HubClient]) -> typer.Typer:
    """Return the commands."""
    app = typer.Typer(no_args_is_help=True, help="Package models into images.")

    @app.command()
    def create(
        name: Annotated[str, typer.Option("--name", "-n", help="Name of the image.")],
        model: Annotated[
            list[str], typer.Option("--model", "-m", help="name:version, repeatable.")
        ],
        *,
        source: Annotated[
            Path | None,
            typer.Option(help="Folder of the entry script; without it the server scores."),
        ] = None,
        entry_script: Annotated[
            str | None, typer.Option(help="Script with init() and run(), inside the folder.")
        ] = None,
        requirement: Annotated[
            list[str] | None,
            typer.Option("--requirement", "-r", help="One package, like numpy==2.1; repeatable."),
        ] = None,
        requirements: Annotated[
            Path | None, typer.Option(help="File of such lines, as pip reads them.")
        ] = None,
        python_version: Annotated[str, typer.Option(help="Python of the image.")] = "3.11",
        architecture: Annotated[Processor, typer.Option(help="Of the devices.")] = Processor.AMD64,
        base: Annotated[
            BaseChoice, typer.Option(help="host: no base layer, for the process runtime only.")
        ] = BaseChoice.DEBIAN,
        env: Annotated[list[str] | None, typer.Option(help="NAME=value, repeatable.")] = None,
        wait: Annotated[bool, typer.Option(help="Wait until it is built.")] = True,
        output: OutputOption = Output.TABLE,
    ) -> None:
        """Package models, an entry script and the module server into an image.

        Example: rimward image create -n digits-image -m digits:1 --source . --entry-script score.py
        """
        client = hub()
        body: dict[str, Any] = {
            "name": name,
            "models": model,
            "entryScript": entry_script,
            "requirements": _requirements(requirement, requirements),
            "pythonVersion": python_version,
            "architecture": architecture.value,
            "base": base.value,
            "env": pairs(env),
        }
        if source is not None:
            archive = pack(source)
            with transfer(str(source), len(archive.getbuffer())) as moved:
                body["source"] = client.upload(archive, moved)
        image = client.post("/api/v1/images", body)
        if wait:
            image = follow(client, image, say)
        show(image, output, lambda: facts(image))

    @app.command("list")
    def list_(
        name: Annotated[str | None, typer.Argument(help="Only this image.")] = None,
        *,
        output: OutputOption = Output.TABLE,
    ) -> None:
        """List images and their versions."""
        images = hub().get("/api/v1/images", name=name)
        show(images, output, lambda: _table(images))

    @app.command("show")
    def show_(
        ref: Annotated[str, typer.Argument(help="name:version, or name for the newest.")],
        *,
        output: OutputOption = Output.TABLE,
    ) -> None:
        """Show one image with its layers."""
        image = hub().get(f"/api/v1/images/{segment(ref)}")
        show(image, output, lambda: facts(image))

    return app


def _requirements(lines: list[str] | None, path: Path | None) -> list[str] | None:
    if path is None:
        return lines
    try:
        return [*(lines or []), *path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise InvalidError(
            f"the requirements in {str(path)!r} cannot be read",
            code=Code.FILE_MISSING,
            hint="name a text file with a package on each line",
        ) from error


def follow(client: HubClient, image: dict[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    """Wait until an image is built, telling every step; return it ready.

    Raises:
        FleetError: Why the building failed.
    """
    ref, step = f"{image['name']}:{image['version']}", ""
    while image["state"] == "building":
        if image["progress"] != step:
            step = image["progress"]
            tell(f"{ref}: {step}")
        pause(_POLL_SECONDS)
        image = client.get(f"/api/v1/images/{segment(ref)}")
    if image["state"] == "failed":
        raise FleetError(
            f"image {ref!r} was not built: {image['error']}",
            code=Code(image["errorCode"]),
            hint=image["errorHint"] or None,
        )
    return image


def pack(folder: Path) -> io.BytesIO:
    """Return a source folder as a tar: sorted, without dates and owners, so that equal is equal.

    Raises:
        InvalidError: `file-missing`, `too-large` beyond 100 MiB, `request-invalid` for a link.
    """
    if not folder.is_dir():
        raise InvalidError(
            f"no folder {str(folder)!r}", code=Code.FILE_MISSING, hint="name the script's folder"
        )
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(folder.rglob("*")):
            relative = path.relative_to(folder)
            if _SKIPPED.intersection(relative.parts) or path.is_dir():
                continue
            if path.is_file() and buffer.tell() + path.stat().st_size > _MAX_SOURCE_BYTES:
                raise InvalidError(
                    f"the source folder {str(folder)!r} is larger than {size(_MAX_SOURCE_BYTES)}",
                    code=Code.TOO_LARGE,
                    hint="name a folder with the script alone; models are registered apart",
                )
            _add(tar, path, str(relative))
    buffer.seek(0)
    return buffer


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    if path.is_symlink() or not path.is_file():
        raise InvalidError(
            f"{str(path)!r} is a link or a special file",
            code=Code.REQUEST_INVALID,
            hint="put a copy of the file there",
        )
    info = tarfile.TarInfo(name)
    info.size, info.mode = path.stat().st_size, 0o644
    file: BinaryIO
    with path.open("rb") as file:
        tar.addfile(info, file)


def _table(images: list[dict[str, Any]]) -> list[list[str]]:
    rows = [
        [
            f"{i['name']}:{i['version']}",
            i["state"] if i["state"] != "building" else f"building: {i['progress']}",
            ", ".join(i["models"]),
            size(sum(layer["size"] for layer in i["layers"])),
            (i["digest"] or "")[:19],
        ]
        for i in images
    ]
    return [["image", "state", "models", "size", "digest"], *rows]
