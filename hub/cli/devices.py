"""`rimward device`: invite, list, show, tag, retire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from hub.cli.client import HubClient, segment
from hub.cli.options import OutputOption, tags
from hub.cli.render import Output, facts, say, show

_PAGE = 1000


def commands(hub: Callable[[], HubClient]) -> typer.Typer:
    """Return the commands."""
    app = typer.Typer(no_args_is_help=True, help="Invite, look at and retire devices.")

    @app.command()
    def invite(
        device_id: Annotated[str, typer.Argument(help="Id the device will have.")],
        *,
        tag: Annotated[list[str] | None, typer.Option(help="key=value, repeatable.")] = None,
        hours: Annotated[float, typer.Option(help="How long the claim is good.")] = 24,
        output: OutputOption = Output.TABLE,
    ) -> None:
        """Make a single-use claim token; run the printed command on the device.

        Example: rimward device invite press-7 --tag site=plant-7
        """
        body = {"deviceId": device_id, "tags": tags(tag), "hours": hours}
        invitation = hub().post("/api/v1/invitations", body)
        say("on the device: rimward-agent enroll --profile generic-x86 --claim <the token below>")
        show(invitation, output, lambda: [["claim"], [invitation["claim"]]])

    @app.command("list")
    def list_(*, output: OutputOption = Output.TABLE) -> None:
        """List devices, what they run and how they are."""
        devices = every(hub())
        show(devices, output, lambda: _table(devices))

    @app.command("show")
    def show_(
        device_id: Annotated[str, typer.Argument(help="The device.")],
        *,
        output: OutputOption = Output.TABLE,
    ) -> None:
        """Show one device with its twin."""
        device = hub().get(f"/api/v1/devices/{segment(device_id)}")
        show(device, output, lambda: facts(device))

    @app.command("tag")
    def tag_(
        device_id: Annotated[str, typer.Argument(help="The device.")],
        tag: Annotated[list[str], typer.Argument(help="key=value; key=null removes.")],
        *,
        output: OutputOption = Output.TABLE,
    ) -> None:
        """Change tags; deployments follow at once."""
        device = hub().patch(f"/api/v1/devices/{segment(device_id)}/tags", tags(tag))
        show(device["tags"], output, lambda: facts(device["tags"]))

    @app.command()
    def retire(device_id: Annotated[str, typer.Argument(help="The device.")]) -> None:
        """Stop trusting a device, at once."""
        hub().post(f"/api/v1/devices/{segment(device_id)}/retire")
        say(f"retired {device_id}")

    @app.command()
    def profiles(*, output: OutputOption = Output.TABLE) -> None:
        """List the device profiles."""
        found = hub().get("/api/v1/profiles")
        show(found, output, lambda: _profiles(found))

    return app


def every(client: HubClient) -> list[dict[str, Any]]:
    """Return all devices, page by page."""
    devices: list[dict[str, Any]] = []
    while True:
        after = devices[-1]["id"] if devices else ""
        page = client.get("/api/v1/devices", after=after, limit=_PAGE)
        devices += page
        if len(page) < _PAGE:
            return devices


def _table(devices: list[dict[str, Any]]) -> list[list[str]]:
    rows = [
        [
            d["id"],
            d["profile"],
            "retired" if d["state"] == "retired" else "online" if d["connected"] else "offline",
            ", ".join(
                f"{name} {_object(module).get('runtimeStatus', '')}"
                for name, module in _object(d["reported"].get("modules")).items()
            ),
            _update(_object(d["reported"].get("x-update"))),
            ", ".join(f"{k}={v}" for k, v in d["tags"].items()),
        ]
        for d in devices
    ]
    return [["device", "profile", "state", "modules", "last update", "tags"], *rows]


def _update(update: dict[str, Any]) -> str:
    return f"{update.get('deployment', '')} {update.get('state', '')}".strip()


def _object(value: Any) -> dict[str, Any]:
    """Return a value a device reported when it is an object: it can report anything."""
    return value if isinstance(value, dict) else {}


def _profiles(found: list[dict[str, Any]]) -> list[list[str]]:
    rows = [
        [p["name"], p["architecture"], ", ".join(p["runtimes"]), p["support"], p["description"]]
        for p in found
    ]
    return [["profile", "architecture", "runtimes", "support", "description"], *rows]
