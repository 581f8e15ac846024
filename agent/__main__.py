"""`rimward-agent` and `python -m agent`: enroll, run, list, logs."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog

from agent import bootstrap, logs
from agent.adapters.audit import StatusFile
from agent.adapters.clock import SystemClock
from agent.settings import RUNTIMES, VERSION, Settings, read_settings
from protocol.errors import CATALOGUE, Code, FleetError, NotFoundError

log = structlog.get_logger()


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(
        prog="rimward-agent",
        description="Run machine-learning modules on this device as its hub says.",
        epilog="example: rimward-agent enroll --profile generic-x86 --claim rw1...",
    )
    top.add_argument("--version", action="version", version=VERSION)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--home", type=Path, help="folder of everything the agent keeps")
    runtimes = argparse.ArgumentParser(add_help=False)
    runtimes.add_argument("--runtime", choices=RUNTIMES, help="what starts modules (default: auto)")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    enroll = commands.add_parser("enroll", parents=[common], help="trade a claim for an identity")
    enroll.add_argument(
        "--claim", required=True, help="token of `rimward device invite`; - for stdin"
    )
    enroll.add_argument("--profile", required=True, help="what this device is, e.g. generic-x86")
    commands.add_parser("run", parents=[common, runtimes], help="run until stopped")
    listing = commands.add_parser("list", parents=[common], help="show what runs and how it is")
    listing.add_argument("--output", "-o", choices=("table", "json"), default="table")
    log = commands.add_parser("logs", parents=[common, runtimes], help="show what a module wrote")
    log.add_argument("module", help="name of the module")
    commands.add_parser(
        "stop-modules", parents=[common, runtimes], help="stop what a stopped agent left running"
    )
    log.add_argument("--tail", type=int, default=100, help="lines from the end (default: 100)")
    return top


def main() -> None:
    """Run the command line; render errors, choose exit codes."""
    arguments = parser().parse_args()
    try:
        settings = read_settings(home=arguments.home, runtime=getattr(arguments, "runtime", None))
        # A command's own words are enough; the daemon's events are what its log is for.
        logs.configure(settings.log_level if arguments.command == "run" else "warning")
        with suppress(asyncio.CancelledError):
            asyncio.run(_run(arguments, settings))
    except FleetError as error:
        _show(error)
        sys.exit(error.entry.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:  # a defect: its exit code tells a supervisor, its traceback tells us
        log.exception("agent.crashed")
        sys.exit(CATALOGUE[Code.INTERNAL].exit_code)


async def _run(arguments: argparse.Namespace, settings: Settings) -> None:
    match arguments.command:
        case "enroll":
            claim = sys.stdin.readline().strip() if arguments.claim == "-" else arguments.claim
            identity = await bootstrap.enroll(settings, claim, arguments.profile)
            _say(
                f"enrolled as {identity.device}; its folder is {settings.home}\n"
                f"start it with `rimward-agent run{_home_option(arguments)}`"
            )
        case "run":
            # Whoever opens an input in the instant it is looked at must not end the agent.
            signal.signal(signal.SIGIO, signal.SIG_IGN)
            task = asyncio.current_task()
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, _cancel, task)
            await bootstrap.run(settings)
        case "list":
            _list(settings, as_json=arguments.output == "json")
        case "logs":
            await _logs(settings, arguments.module, arguments.tail)
        case "stop-modules":
            await bootstrap.stop_modules(settings)


def _home_option(arguments: argparse.Namespace) -> str:
    return f" --home {arguments.home}" if arguments.home else ""


def _cancel(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()


def _list(settings: Settings, *, as_json: bool) -> None:
    reported = StatusFile(settings.home / "status.json").read()
    if reported is None:
        bootstrap.Enrolled.load(settings)  # says so when it is not even enrolled
        raise NotFoundError(
            "the agent has not run yet",
            code=Code.MODULE_UNKNOWN,
            hint="start it: `rimward-agent run`",
        )
    if not bootstrap.is_running(settings.home):
        _say("the agent is not running; this is what it reported last")
    if as_json:
        _print(msgspec.json.format(msgspec.json.encode(reported), indent=2).decode())
        return
    _print(f"{'MODULE':<24}{'STATUS':<12}{'RESTARTS':<10}IMAGE")
    for name, module in reported.get("modules", {}).items():
        image = module["settings"]["image"]
        _print(f"{name:<24}{module['runtimeStatus']:<12}{module['restartCount']:<10}{image}")
    if update := reported.get("x-update"):
        why = f": {update['code']}: {update['message']}" if "code" in update else ""
        what = update["deployment"] or "nothing to run any more,"
        _print(f"last update: {what} {update['state']}{why}")


async def _logs(settings: Settings, module: str, tail: int) -> None:
    enrolled, clock = bootstrap.Enrolled.load(settings), SystemClock()
    runtime = await bootstrap.choose_runtime(settings, enrolled, clock)
    found = [i for i in (await runtime.observe()).instances if i.module == module]
    if not found:
        raise NotFoundError(
            f"no module {module!r} on this device",
            code=Code.MODULE_UNKNOWN,
            hint="list them with `rimward-agent list`",
        )
    for instance in found:
        _print((await runtime.logs(instance.id, tail=max(1, tail))).rstrip("\n"))


def _print(text: str) -> None:
    print(text)  # noqa: T201 - stdout belongs to data


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201 - talk goes to stderr


def _show(error: FleetError) -> None:
    _say(f"error[{error.code}]: {error}")
    if error.hint:
        _say(f"hint: {error.hint}")


if __name__ == "__main__":
    main()
