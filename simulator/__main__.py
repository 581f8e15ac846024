"""`python -m simulator`: a fleet of simulated devices in one process.

Example: rimward device invite sim-01 -o json | python -m simulator --home fleet --claims -
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent import logs
from agent.settings import Settings
from protocol.errors import Code, FleetError, InvalidError
from simulator import fleet


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(prog="python -m simulator", description=__doc__)
    top.add_argument("--home", type=Path, required=True, help="folder of all devices")
    top.add_argument("--claims", help="file of claims, JSON objects {deviceId, claim}; - for stdin")
    top.add_argument(
        "--seed", type=int, default=1, help="of everything that is random (default: 1)"
    )
    top.add_argument("--log-level", default="warning", help="debug, info, warning or error")
    return top


def main() -> None:
    """Enrol what there are claims for, then run every device of the folder."""
    arguments = parser().parse_args()
    logs.configure(arguments.log_level)
    try:
        with suppress(asyncio.CancelledError):
            asyncio.run(_run(arguments))
    except FleetError as error:
        print(f"error[{error.code}]: {error}", file=sys.stderr)  # noqa: T201 - talk
        sys.exit(error.entry.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


async def _run(arguments: argparse.Namespace) -> None:
    task = asyncio.current_task()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, lambda: task and task.cancel())
    if arguments.claims:
        claims = _read_claims(arguments.claims)
        await fleet.enroll_all([arguments.home / name for name in claims], list(claims.values()))
    homes = sorted(path.parents[1] for path in arguments.home.glob("*/identity/enrolled.json"))
    if not homes:
        raise InvalidError(
            f"no devices in {str(arguments.home)!r}",
            code=Code.FILE_MISSING,
            hint="give --claims a file of claims: `rimward device invite sim-01 -o json`",
        )
    print(json.dumps({"devices": len(homes)}), flush=True)  # noqa: T201 - data for the caller
    devices = [Settings(home=home.absolute(), ledger=home / "acknowledged") for home in homes]
    await fleet.run_all(devices, (arguments.home / ".shared").absolute(), arguments.seed)


def _read_claims(source: str) -> dict[str, str]:
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text()
        return {row["deviceId"]: row["claim"] for row in _values(text)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidError(
            f"the claims in {source!r} cannot be read: {error}",
            code=Code.FILE_MISSING,
            hint='write JSON objects {"deviceId": ..., "claim": ...}, one after the other',
        ) from error


def _values(text: str) -> Iterator[Any]:
    """Yield the JSON values in a text, as `rimward device invite -o json` writes each."""
    decoder, rest = json.JSONDecoder(), text.strip()
    while rest:
        value, end = decoder.raw_decode(rest)
        yield value
        rest = rest[end:].lstrip()


if __name__ == "__main__":
    main()
