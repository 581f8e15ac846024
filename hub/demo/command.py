"""`rimward demo`."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import typer

from hub.demo import story
from hub.demo import summary as results
from hub.demo.processes import Processes
from hub.demo.screen import Screen
from hub.demo.story import Stage
from protocol.errors import Code, FleetError


def tell(summary: Path, *, keep: bool) -> None:
    """Run the story, show what came of it, and write it to `summary`.

    Raises:
        FleetError: Something that should have happened did not.
    """
    folder = Path(tempfile.mkdtemp(prefix="rimward-demo-"))
    processes = Processes(folder / "logs")
    stage = story.Stage(folder, Screen(), processes)
    finished = False
    # The processes have sessions of their own: nobody else would end them.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: sys.exit(128 + received))
    try:
        story.run(stage)
        result = results.summarise(stage)
        summary.write_text(json.dumps(result, indent=2) + "\n")
        results.show(result)
        finished = bool(result["ok"])
    finally:
        if keep and finished:
            _leave(stage)
        else:
            _end(stage, finished=finished)
    if not finished:
        raise FleetError(
            "the demo did not end as it should",
            code=Code.INTERNAL,
            hint=f"the checks above say what failed; the logs are in {folder}",
        )


def _end(stage: Stage, *, finished: bool) -> None:
    """Stop everything; remove the folder unless somebody has to look into it."""
    stage.screen.say("stopping everything")
    stage.processes.stop()
    _stop_modules(stage)
    if finished:
        shutil.rmtree(stage.folder, ignore_errors=True)
    else:
        typer.echo(f"what happened is in {stage.folder}", err=True)


def _stop_modules(stage: Stage) -> None:
    """Stop what agents leave running on purpose when they end: their modules."""
    for device, (_, runtime) in stage.devices.items():
        if runtime != "simulated":
            home = ["--home", str(stage.home(device)), "--runtime", runtime]
            stage.processes.run(f"clean-{device}", "agent", ["stop-modules", *home])


def _leave(stage: Stage) -> None:
    """Leave everything running and say how to look around."""
    story.take_cables_away(stage)
    rimward, agent = (Path(sys.executable).parent / name for name in ("rimward", "rimward-agent"))
    pids = " ".join(str(child.process.pid) for child in stage.processes.running())
    homes = [
        f"{agent} stop-modules --home {stage.home(device)} --runtime {runtime}"
        for device, (_, runtime) in stage.devices.items()
        if runtime != "simulated"
    ]
    stop = stage.folder / "stop.sh"
    lines = [f"kill {pids}", "sleep 3", *homes, f"rm -rf {stage.folder}"]
    stop.write_text("\n".join(lines) + "\n")
    typer.echo(
        f"""
Everything is left running. Look around:
  export RIMWARD_CONTEXT={stage.folder / "hub" / "admin.json"}
  {rimward} device list
  {rimward} deployment show digits-2
  {rimward} telemetry tail --follow
Logs are in {stage.folder / "logs"}
Stop it with: sh {stop}"""
    )
