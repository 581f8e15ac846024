from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from simulator.link import Cut, LinkProxy

ROOT = Path(__file__).resolve().parents[3]
LIMIT_SECONDS = 10


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1000):
        writer.write(data)
    writer.close()


@asynccontextmanager
async def lab(*, delay_seconds: float = 0.0) -> AsyncIterator[LinkProxy]:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    proxy = LinkProxy(0, server.sockets[0].getsockname(), delay_seconds=delay_seconds)
    await proxy.start()
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            yield proxy
    finally:
        await proxy.stop()
        server.close()
        await server.wait_closed()


async def connect(proxy: LinkProxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> bytes:
    writer.write(data)
    return await reader.readexactly(len(data))


def run(scenario: Callable[[LinkProxy], Awaitable[None]]) -> None:
    async def story() -> None:
        async with lab() as proxy:
            await scenario(proxy)

    asyncio.run(story())


def test_bytes_pass_in_both_directions_to_the_end() -> None:
    async def scenario(proxy: LinkProxy) -> None:
        reader, writer = await connect(proxy)
        writer.write(b"x" * 1_000_000)
        writer.write_eof()

        assert len(await reader.read(-1)) == 1_000_000
        writer.close()

    run(scenario)


def test_a_cut_resets_connections_and_refuses_new_ones() -> None:
    async def scenario(proxy: LinkProxy) -> None:
        reader, writer = await connect(proxy)
        assert await answer(reader, writer, b"before") == b"before"

        await proxy.cut()

        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        with pytest.raises(ConnectionRefusedError):
            await connect(proxy)
        assert proxy.connections == 0
        writer.close()

    run(scenario)


def test_a_healed_link_listens_on_the_same_port() -> None:
    async def scenario(proxy: LinkProxy) -> None:
        port = proxy.port
        await proxy.cut()
        await proxy.cut()
        await proxy.heal()
        reader, writer = await connect(proxy)

        assert (proxy.port, await answer(reader, writer, b"after")) == (port, b"after")
        writer.close()

    run(scenario)


def test_a_silent_link_holds_bytes_back_until_it_is_healed() -> None:
    async def scenario(proxy: LinkProxy) -> None:
        reader, writer = await connect(proxy)
        await answer(reader, writer, b"before")
        await proxy.cut(Cut.SILENCE)
        writer.write(b"held")

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(
                asyncio.shield(waiting := asyncio.ensure_future(reader.readexactly(4))), 0.1
            )
        await proxy.heal()

        assert await waiting == b"held"
        writer.close()

    run(scenario)


def test_a_target_that_is_gone_ends_the_connection() -> None:
    async def scenario() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        target = server.sockets[0].getsockname()
        server.close()
        await server.wait_closed()
        proxy = LinkProxy(0, target)
        await proxy.start()
        reader, writer = await connect(proxy)

        assert await asyncio.wait_for(reader.read(1), LIMIT_SECONDS) == b""
        writer.close()
        await proxy.stop()

    asyncio.run(scenario())


def test_delayed_bytes_arrive_whole() -> None:
    async def story() -> None:
        async with lab(delay_seconds=0.02) as proxy:
            reader, writer = await connect(proxy)

            assert await answer(reader, writer, b"late") == b"late"
            writer.close()

    asyncio.run(story())


def test_the_program_prints_its_port_and_obeys_lines() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "simulator.link", "--listen", "0", "--target", "127.0.0.1:1"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    output, _ = process.communicate("cut\ncut silence\nheal\nfly\nquit\n", timeout=20)
    lines = [json.loads(line) for line in output.splitlines()]

    assert lines[0]["port"] > 0
    assert lines[1:] == [
        {"done": "cut"},
        {"done": "cut silence"},
        {"done": "heal"},
        {"error": "unknown command 'fly'"},
    ]
    assert process.returncode == 0


def test_the_program_takes_commands_over_a_socket_too(tmp_path: Path) -> None:
    control = tmp_path / "control"
    options = ("--target", "127.0.0.1:1", "--control", str(control))
    process = subprocess.Popen(
        [sys.executable, "-m", "simulator.link", *options],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()

    async def command() -> None:
        _, writer = await asyncio.open_unix_connection(control)
        writer.write(b"cut\nquit\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    asyncio.run(command())
    output, _ = process.communicate(timeout=20)

    assert (output, process.returncode) == ('{"done": "cut"}\n', 0)
