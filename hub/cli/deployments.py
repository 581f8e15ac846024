"""`rimward deployment`: create, list, show, abort."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from hub.cli.client import HubClient, segment
from hub.cli.models import read_json
from hub.cli.options import OutputOption, pairs
from hub.cli.render import Output, say, show
from protocol.errors import Code, InvalidError


def commands(hub: Callable[[], HubClient]) -> typer.Typer:
    """Return the commands."""
    app = typer.Typer(no_args_is_help=True, help="Decide what runs where.")

    @app.command()
    def create(
        deployment_id: Annotated[str, typer.Argument(help="Id of the deployment.")],
        target_condition: Annotated[
            str, typer.Option("--target-condition", "-t", help="For example tags.site = 'plant-7'.")
        ],
        *,
        image: Annotated[
            str | None, typer.Option(help="An image to run as one module: name:version.")
        ] = None,
        module: Annotated[str, typer.Option(help="Name of that module.")] = "model",
        manifest: Annotated[
            Path | None, typer.Option(help="Or a whole deployment manifest (IoT Edge's JSON).")
        ] = None,
        priority: Annotated[
            int, typer.Option(help="The highest wins; among equals the newest.")
        ] = 0,
        waves: Annotated[str, typer.Option(help="Sizes of the first waves: 1,10%.")] = "",
        soak: Annotated[
            float, typer.Option(help="Seconds all must be well between waves.", min=0)
        ] = 0,
        min_success: Annotated[
            float, typer.Option(help="Share that must succeed.", min=0, max=1)
        ] = 1,
        silent: Annotated[
            float, typer.Option(help="Seconds of silence that count as failure.", min=1)
        ] = 1800,
        label: Annotated[list[str] | None, typer.Option(help="key=value, repeatable.")] = None,
        output: OutputOption = Output.TABLE,
    ) -> None:
        """Create a deployment and start its rollout.

        Example: rimward deployment create d1 -t "tags.site = 'plant-7'" --image digits-image:1
        """
        if (image is None) == (manifest is None):
            raise InvalidError(
                "give either --image or --manifest",
                code=Code.REQUEST_INVALID,
                hint="--image runs one module; --manifest says everything",
            )
        content = read_json(manifest) if manifest else simple_manifest(module, str(image))
        body = {
            "id": deployment_id,
            "manifest": content,
            "targetCondition": target_condition,
            "priority": priority,
            "labels": pairs(label),
            "waves": waves,
            "soakSeconds": soak,
            "minSuccess": min_success,
            "silentSeconds": silent,
        }
        deployment = hub().post("/api/v1/deployments", body)
        say(f"created {deployment_id}; follow it with `rimward deployment show {deployment_id}`")
        if not any(deployment["devices"].values()):
            say("it matches no device now; devices that match later get it when they do")
        show(deployment, output, lambda: _table([deployment]))

    @app.command("list")
    def list_(*, output: OutputOption = Output.TABLE) -> None:
        """List deployments and how far they got."""
        found = hub().get("/api/v1/deployments")
        show(found, output, lambda: _table(found))

    @app.command("show")
    def show_(
        deployment_id: Annotated[str, typer.Argument(help="The deployment.")],
        *,
        output: OutputOption = Output.TABLE,
    ) -> None:
        """Show a deployment, device by device."""
        client = hub()
        deployment = client.get(f"/api/v1/deployments/{segment(deployment_id)}")
        members = client.get(f"/api/v1/deployments/{segment(deployment_id)}/devices")
        why = f": {deployment['reason']}" if deployment["reason"] else ""
        say(f"{deployment_id} is {deployment['state']}{why}")
        aborted = deployment["state"] == "aborted"
        show({**deployment, "members": members}, output, lambda: _members(members, aborted=aborted))

    @app.command()
    def abort(
        deployment_id: Annotated[str, typer.Argument(help="The deployment.")],
        *,
        output: OutputOption = Output.TABLE,
    ) -> None:
        """Take a deployment back: its devices return to what they ran before, or to nothing."""
        deployment = hub().post(f"/api/v1/deployments/{segment(deployment_id)}/abort")
        show(deployment, output, lambda: _table([deployment]))

    return app


def simple_manifest(module: str, image: str, **extra: Any) -> dict[str, Any]:
    """Return the manifest of one module whose answers go to the hub.

    Args:
        module: Its name.
        image: What it runs.
        extra: Further keys of the module, underscores for dashes in `x_` keys.
    """
    entry = {
        "type": "docker",
        "status": "running",
        "restartPolicy": "always",
        "settings": {"image": image, "createOptions": "{}"},
        "x-probes": {"ready": {"kind": "http", "path": "/health/ready"}},
        "x-inputs": {"frames": {"directory": module}},
        **{key.replace("_", "-", 1): value for key, value in extra.items()},
    }
    return {
        "modulesContent": {
            "$edgeAgent": {
                "properties.desired": {"schemaVersion": "1.1", "modules": {module: entry}}
            },
            "$edgeHub": {
                "properties.desired": {
                    "schemaVersion": "1.1",
                    "routes": {"up": "FROM /messages/* INTO $upstream"},
                }
            },
        }
    }


def _table(found: list[dict[str, Any]]) -> list[list[str]]:
    rows = [
        [
            d["id"],
            d["state"],
            str(d["priority"]),
            d["targetCondition"],
            ", ".join(d["models"]),
            ", ".join(
                f"{count} {_state(state, aborted=d['state'] == 'aborted')}"
                for state, count in d["devices"].items()
                if count
            ),
        ]
        for d in found
    ]
    return [["deployment", "state", "priority", "target", "models", "devices"], *rows]


def _state(state: str, *, aborted: bool) -> str:
    """Return how a member stands, in words: nothing of an aborted deployment is left anywhere."""
    if not aborted:
        return state
    return {"waiting": "never sent", "failed": "failed"}.get(state, "taken back")


def _members(members: list[dict[str, Any]], *, aborted: bool) -> list[list[str]]:
    rows = [
        [
            m["deviceId"],
            _state(m["state"], aborted=aborted),
            "" if m["wave"] is None else str(m["wave"] + 1),
            f"{m['code']}: {m['message']}" if m["code"] else "",
        ]
        for m in members
    ]
    return [["device", "state", "wave", "why"], *rows]
