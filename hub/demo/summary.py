"""What the demo found: computed from what the hub stored, judged, shown as tables."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from hub.cli.devices import every
from hub.cli.render import size
from hub.demo.story import AFTERWARDS, FRAMES_EACH, MODULE, Stage, acknowledged

_PAGE = 1000
_MIN_ACCURACY = 0.9


def summarise(stage: Stage) -> dict[str, Any]:
    """Return everything that is shown, with `ok` and a list of what was checked."""
    rows = _telemetry(stage)
    stored = Counter(device for device, _ in rows)
    truth = {
        name: stage.digits.truth[name.partition(".")[2]]
        for sent in stage.sent.values()
        for name in sent
    }
    scores = {
        by: stage.client.post("/api/v1/telemetry/score", {"truth": truth, "by": by})
        for by in ("device", "profile")
    }
    devices = {
        device["id"]: _device(stage, device, scores["device"], stored)
        for device in every(stage.client)
    }
    sent = {(device, name) for device, names in stage.sent.items() for name in names}
    telemetry = {
        "sent": len(sent),
        "acknowledged": sum(device["acknowledged"] for device in devices.values()),
        "stored": len(rows),
        "lost": len(sent - set(rows)),
        "duplicated": len(rows) - len(set(rows)),
    }
    checks = _checks(stage, devices, telemetry, scores["profile"])
    return {
        "ok": all(checks.values()),
        "checks": checks,
        "devices": devices,
        "profiles": scores["profile"],
        "telemetry": telemetry,
        "modelAccuracyInTraining": round(stage.digits.accuracy, 4),
        "badVersion": stage.refusal,
        "bytesPulled": sum(device["bytesPulled"] for device in devices.values()),
        "secondsPerStep": stage.seconds,
        "seconds": round(sum(stage.seconds.values()), 1),
        "notes": stage.notes,
    }


def _telemetry(stage: Stage) -> list[tuple[str, str]]:
    """Return (device, input) of every stored record: read back, not taken from a counter."""
    rows: list[tuple[str, str]] = []
    after = 0
    while page := stage.client.get("/api/v1/telemetry", after=after, limit=_PAGE):
        rows += [(row["device"], row["properties"]["input"]) for row in page]
        after = page[-1]["id"]
    return rows


def _device(
    stage: Stage, device: dict[str, Any], scores: dict[str, Any], stored: Counter[str]
) -> dict[str, Any]:
    name, reported = device["id"], device["reported"]
    image = reported["modules"][MODULE]["settings"]["image"]
    versions = {i["reference"]: i["models"] for i in stage.client.get("/api/v1/images")}
    score = scores.get(name, {})
    return {
        "profile": device["profile"],
        "runtime": reported["runtime"]["x-kind"],
        "model": ", ".join(versions.get(image, ["?"])),
        "status": reported["modules"][MODULE]["runtimeStatus"],
        "inferences": stored[name],
        "sent": len(stage.sent[name]),
        "acknowledged": acknowledged(stage.home(name)),
        "accuracy": score.get("accuracy"),
        "latencyP50Ms": score.get("latencyP50Ms"),
        "latencyP99Ms": score.get("latencyP99Ms"),
        "bytesPulled": reported["x-bytesPulled"],
    }


def _checks(
    stage: Stage,
    devices: dict[str, Any],
    telemetry: dict[str, int],
    profiles: dict[str, Any],
) -> dict[str, bool]:
    refusal = stage.refusal
    return {
        "every device runs version 1": all(
            d["model"] == "digits:1" and d["status"] == "running" for d in devices.values()
        ),
        "every device inferred all it was given": all(
            d["inferences"] == d["sent"] == FRAMES_EACH + AFTERWARDS for d in devices.values()
        ),
        "nothing lost": telemetry["lost"] == 0,
        "nothing duplicated": telemetry["duplicated"] == 0,
        "everything acknowledged": telemetry["acknowledged"] == telemetry["sent"],
        "answers are right": all(p["accuracy"] >= _MIN_ACCURACY for p in profiles.values()),
        "bad version refused by its golden samples": refusal.get("code") == "golden-mismatch",
        "the rest untouched": refusal.get("untouched") == refusal.get("others"),
        # An engine shares its layers with everything else on the machine: it may have them already.
        "images pulled over the wire": all(
            d["bytesPulled"] > 0 for d in devices.values() if d["runtime"] != "docker"
        ),
    }


def show(summary: dict[str, Any]) -> None:
    """Print the tables."""
    # A pipe has no width; people on a terminal have theirs.
    console = Console(width=None if sys.stdout.isatty() else 100)
    console.print()
    console.print(_devices(summary["devices"]))
    console.print()
    console.print(_profiles(summary["profiles"]))
    console.print()
    console.print(_counts(summary))
    console.print()
    for check, held in summary["checks"].items():
        console.print(f"  [{'green]yes' if held else 'red]NO '}[/] {check}")
    for note in summary["notes"]:
        console.print(f"  note: {note}", style="dim", markup=False)


def _devices(devices: dict[str, Any]) -> Table:
    table = Table(title="devices", title_justify="left", header_style="bold", box=SIMPLE)
    for head in ("device", "profile", "runtime", "model"):
        table.add_column(head, no_wrap=True)
    for head in ("answers", "right", "p50 ms", "p99 ms", "pulled"):
        table.add_column(head, justify="right", no_wrap=True)
    for name, d in devices.items():
        table.add_row(
            name,
            d["profile"],
            d["runtime"],
            d["model"],
            str(d["inferences"]),
            f"{d['accuracy']:.1%}",
            f"{d['latencyP50Ms']:.1f}",
            f"{d['latencyP99Ms']:.1f}",
            size(d["bytesPulled"]),
        )
    return table


def _profiles(profiles: dict[str, Any]) -> Table:
    table = Table(title="profiles", title_justify="left", header_style="bold", box=SIMPLE)
    for head in ("profile", "answers", "right", "p50 ms", "p99 ms"):
        table.add_column(head, justify="left" if head == "profile" else "right")
    for name, p in profiles.items():
        table.add_row(
            name,
            str(p["answered"]),
            f"{p['accuracy']:.1%}",
            f"{p['latencyP50Ms']:.1f}",
            f"{p['latencyP99Ms']:.1f}",
        )
    return table


def _counts(summary: dict[str, Any]) -> Table:
    table = Table(title="the job", title_justify="left", show_header=False, box=SIMPLE)
    table.add_column()
    table.add_column(justify="right")
    for name, count in summary["telemetry"].items():
        table.add_row(f"telemetry {name}", str(count))
    table.add_row("bytes of images pulled", size(summary["bytesPulled"]))
    bad = summary["badVersion"]
    table.add_row("bad version 2", f"refused on {bad['device']}, {bad['untouched']} untouched")
    for step, seconds in summary["secondsPerStep"].items():
        table.add_row(step, f"{seconds:.1f} s")
    table.add_row("all steps", f"{summary['seconds']:.1f} s")
    return table
