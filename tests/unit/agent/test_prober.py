from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from agent.adapters.prober import ANSWER_LIMIT, HttpProber
from protocol.errors import Code, FleetError

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Answers every request with the next of some bytes; None closes the connection."""

    def __init__(self, *answers: bytes | None, close: bool = False) -> None:
        self.answers = list(answers)
        self.close = close
        self.connections = 0
        self.requests: list[bytes] = []

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = 0
                if b"Content-Length: " in head:
                    length = int(head.partition(b"Content-Length: ")[2].partition(b"\r")[0])
                self.requests.append(head + await reader.readexactly(length))
                answer = self.answers.pop(0)
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
                if self.close:
                    break
        except (asyncio.IncompleteReadError, ConnectionError, IndexError):
            pass
        finally:
            writer.close()


def ask(server: Server, *bodies: bytes | None, timeout: float = 5) -> list[tuple[int, bytes]]:
    async def scenario() -> list[tuple[int, bytes]]:
        prober = HttpProber()
        listener = await asyncio.start_server(server.talk, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        try:
            url = f"http://127.0.0.1:{port}/score?verbose=1"
            return [await prober.request(url, body, timeout_seconds=timeout) for body in bodies]
        finally:
            await prober.close()
            listener.close()
            await listener.wait_closed()
            await asyncio.sleep(0)  # the server's side of the connections ends

    return asyncio.run(scenario())


def fails(server: Server, timeout: float = 5) -> FleetError:
    with pytest.raises(FleetError) as caught:
        ask(server, b"{}", timeout=timeout)
    assert caught.value.code is Code.PROBE_FAILED
    return caught.value


def test_requests_are_get_without_and_post_with_a_body() -> None:
    server = Server(OK, OK)

    assert ask(server, None, b'{"x": 1}') == [(200, b"ok"), (200, b"ok")]

    get, post = server.requests
    assert get.startswith(b"GET /score?verbose=1 HTTP/1.1\r\nHost: 127.0.0.1:")
    assert post.startswith(b"POST /score?verbose=1 HTTP/1.1\r\n")
    assert b"Content-Type: application/json\r\n" in post
    assert post.endswith(b'\r\n\r\n{"x": 1}')


def test_a_connection_is_used_again() -> None:
    server = Server(OK, OK, OK)

    ask(server, b"1", b"2", b"3")

    assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
)
def test_a_connection_the_server_ends_is_not_used_again(answer: bytes) -> None:
    server = Server(answer, answer)

    assert ask(server, b"1", b"2") == [(200, b"ok"), (200, b"ok")]
    assert server.connections == 2


def test_a_connection_that_went_stale_is_replaced() -> None:
    server = Server(OK, None, OK)

    assert ask(server, b"1", b"2") == [(200, b"ok"), (200, b"ok")]
    assert server.connections == 2


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy", (503, b"busy")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"")),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, (200, b"ok")),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (200, b"")),
        (
            (
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n"
                b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\n"
            ),
            (200, b"abc0123456789"),
        ),
    ],
)
def test_answers_are_read_in_every_framing(answer: bytes, expected: tuple[int, bytes]) -> None:
    assert ask(Server(answer), b"{}") == [expected]


def test_an_answer_without_a_length_ends_with_the_connection() -> None:
    server = Server(b"HTTP/1.1 200 OK\r\n\r\nall there is", close=True)

    assert ask(server, b"{}") == [(200, b"all there is")]


def test_an_answer_may_come_in_single_bytes() -> None:
    class Slow(Server):
        async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            for (
                byte
            ) in b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n":
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0)
            writer.close()

    assert ask(Slow(), None) == [(200, b"ok")]


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (ANSWER_LIMIT + 1),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFF\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 2000,
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
        None,
    ],
)
def test_what_is_no_answer_is_a_failure(answer: bytes | None) -> None:
    fails(Server(answer))


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\n", OK[:-1]])
def test_a_cut_answer_is_a_failure(answer: bytes) -> None:
    assert "cut off" in str(fails(Server(answer, close=True)))


def test_silence_ends_with_the_time_limit() -> None:
    assert "0.05 seconds" in str(fails(Server(b""), timeout=0.05))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/",
        "https://127.0.0.1/",
        "ftp://x/",
        "http:///x",
        "http://x:y/",
        "http://a\r\nb/",
    ],
)
def test_an_address_where_nobody_is_fails(url: str) -> None:
    async def scenario() -> None:
        with pytest.raises(FleetError) as caught:
            await HttpProber().request(url, None, timeout_seconds=2)
        assert caught.value.code is Code.PROBE_FAILED

    asyncio.run(scenario())


def test_a_prober_outlives_its_event_loop() -> None:
    server = Server(OK, OK)
    prober = HttpProber()

    async def scenario() -> tuple[int, bytes]:
        listener = await asyncio.start_server(server.talk, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        try:
            return await prober.request(f"http://127.0.0.1:{port}/", None, timeout_seconds=5)
        finally:
            await prober.close()
            listener.close()
            await listener.wait_closed()
            await asyncio.sleep(0)

    assert asyncio.run(scenario()) == asyncio.run(scenario()) == (200, b"ok")
