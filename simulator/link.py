"""A cable that can be pulled: a TCP proxy on loopback that cuts, stalls and delays.

It knows nothing of what flows through it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import struct
import sys
from enum import StrEnum
from pathlib import Path

_CHUNK_BYTES = 64 * 1024
_HOST = "127.0.0.1"


class Cut(StrEnum):
    """How a link fails."""

    RESET = "reset"  # connections are reset, new ones refused
    SILENCE = "silence"  # nothing arrives any more; what was sent arrives after healing


class LinkProxy:
    """Forwards TCP connections from a loopback port to `target`, until it is cut.

    Args:
        listen_port: Port on 127.0.0.1, 0 for a free one; it stays the same across cuts.
        target: (host, port) to forward to.
        delay_seconds: How long every chunk is held, in each direction.
    """

    def __init__(
        self, listen_port: int, target: tuple[str, int], *, delay_seconds: float = 0.0
    ) -> None:
        self.port = listen_port
        self.delay_seconds = delay_seconds
        self._target = target
        self._server: asyncio.Server | None = None
        self._flows = asyncio.Event()
        self._stopped = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> int:
        """Number of connections that are open now."""
        return len(self._tasks)

    async def start(self) -> None:
        """Begin to listen; `port` is known afterwards. OSError when the port is taken."""
        self._flows.set()
        await self._listen()

    async def stop(self) -> None:
        """Close everything."""
        self._stopped.set()
        await self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def cut(self, how: Cut = Cut.RESET) -> None:
        """Pull the cable. Cutting twice is not an error."""
        if how is Cut.SILENCE:
            self._flows.clear()
            return
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            _reset(writer)
        # What silence held back goes nowhere now; the tasks see the end of their sockets at once.
        self._flows.set()
        if self._tasks and asyncio.current_task() not in self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)

    async def heal(self) -> None:
        """Put the cable back; connections that were only silent go on."""
        self._flows.set()
        if self._server is None:
            await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accepted, _HOST, self.port)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        other: asyncio.StreamWriter | None = None
        try:
            await self._flowing()
            other_reader, other = await asyncio.open_connection(*self._target)
            self._writers.add(other)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, other))
                group.create_task(self._pump(other_reader, writer))
        except* OSError:
            pass  # one end is gone: the other goes, too
        finally:
            for end in (writer, other):
                if end is not None:
                    self._writers.discard(end)
                    end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(_CHUNK_BYTES):
            if self.delay_seconds:
                await self._hold()
            await self._flowing()
            writer.write(chunk)
            await writer.drain()
        await self._flowing()
        if writer.can_write_eof():
            writer.write_eof()

    async def _flowing(self) -> None:
        if not self._flows.is_set():
            await self._flows.wait()

    async def _hold(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.delay_seconds):
                await self._stopped.wait()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN, as a router that forgot the connection would."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _obey(proxy: LinkProxy, line: str) -> bool:
    """Carry out one command; False when it was `quit`."""
    command, _, argument = line.strip().partition(" ")
    match command:
        case "cut" if argument in ("", *Cut):
            await proxy.cut(Cut(argument or Cut.RESET))
        case "heal":
            await proxy.heal()
        case "quit":
            return False
        case _:
            _say({"error": f"unknown command {line.strip()[:80]!r}"})
            return True
    _say({"done": line.strip()})
    return True


def _say(what: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def _serve(listen: int, target: tuple[str, int], control: Path | None) -> None:
    proxy = LinkProxy(listen, target)
    await proxy.start()
    commands: asyncio.Queue[str] = asyncio.Queue(maxsize=64)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def collect(source: asyncio.StreamReader, *, last: str) -> None:
        while line := await source.readline():
            await commands.put(line.decode())
        if last:
            await commands.put(last)

    async def on_control(source: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await collect(source, last="")
        writer.close()

    server = None
    if control is not None:
        server = await asyncio.start_unix_server(on_control, control)
    # Without another way to command it, the end of stdin is the end.
    reading = loop.create_task(collect(reader, last="quit" if control is None else ""))
    _say({"port": proxy.port})
    try:
        while await _obey(proxy, await commands.get()):
            pass
    finally:
        reading.cancel()
        if server is not None:
            server.close()
        await proxy.stop()


def main() -> None:
    """Run `python -m simulator.link`; prints JSON lines, obeys `cut [silence]`, `heal`, `quit`."""
    parser = argparse.ArgumentParser(prog="python -m simulator.link", description=__doc__)
    parser.add_argument("--listen", type=int, default=0, help="port on 127.0.0.1, 0: a free one")
    parser.add_argument("--target", required=True, help="host:port to forward to")
    parser.add_argument("--control", type=Path, help="Unix socket that takes commands, too")
    arguments = parser.parse_args()
    host, _, port = arguments.target.rpartition(":")
    asyncio.run(_serve(arguments.listen, (host, int(port)), arguments.control))


if __name__ == "__main__":
    main()
