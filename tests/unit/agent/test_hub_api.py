from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tls_lab import DAY, Authority, key_pem, make_authority

from agent.adapters.clock import SystemClock
from agent.adapters.hub_api import MAX_ANSWER_BYTES, HubApiClient, open_pinned
from agent.adapters.trust import client_context, pinned_context
from agent.core.claim import Claim
from protocol import codec
from protocol.errors import Code, FleetError, NotFoundError, UnavailableError
from protocol.ids import parse_image_ref
from protocol.messages import (
    Credential,
    Enrolled,
    EnrollRequest,
    MqttEndpoint,
    Problem,
    Renewed,
)

REQUEST = EnrollRequest("secret", "csr", "generic-x86", "1.0")
ENROLLED = Enrolled("d1", "cert", "ca", {"k": b"k" * 32}, MqttEndpoint("h", 1), "")
IMAGE = parse_image_ref("hub:1/digits@sha256:" + "0" * 64)
SECRET = "0123456789abcdef"


@dataclass
class Script:
    """What the server answers, and what it heard."""

    answer: Callable[[BaseHTTPRequestHandler], None] | None = None
    heard: list[tuple[str, bytes, str]] = field(default_factory=list)


def send(status: int, body: bytes, *, length: int | None = None) -> Callable[[Any], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


class QuietServer(ThreadingHTTPServer):
    """Says nothing about clients that hang up: that is what these tests do."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        del request, client_address


class Server:
    """A real HTTPS server on loopback."""

    def __init__(self, authority: Authority, context: ssl.SSLContext, script: Script) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = 5

            def do_GET(self) -> None:
                send(200, authority.pem.encode())(self)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                peer = self.connection.getpeercert()  # type: ignore[attr-defined] # a TLS socket
                subject = str(dict(pair[0] for pair in peer["subject"])) if peer else ""
                script.heard.append((self.path, body, subject))
                assert script.answer is not None
                script.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = QuietServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"https://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@dataclass
class Lab:
    """An authority, a server under it, and what the server shall say."""

    folder: Path
    authority: Authority
    script: Script
    servers: list[Server] = field(default_factory=list)

    def serve(
        self,
        *,
        client_certificates: bool = False,
        addresses: tuple[str, ...] = ("127.0.0.1",),
        valid: tuple[timedelta, timedelta] = (-DAY, DAY),
    ) -> str:
        path = self.folder / "server.pem"
        issued = self.authority.issue("hub", addresses=addresses, valid=valid)
        path.write_text(key_pem() + issued)
        context = self.authority.server_context(path, client_certificates=client_certificates)
        server = Server(self.authority, context, self.script)
        self.servers.append(server)
        return server.url

    def client(self, url: str, **options: Any) -> HubApiClient:
        root = self.authority.pem
        return HubApiClient(url, lambda: pinned_context(root), SystemClock(), **options)

    def device(self, url: str, authority: Authority, **options: Any) -> HubApiClient:
        credential = authority.credential(self.folder, "d1", **options)
        root = self.authority.pem
        return HubApiClient(url, lambda: client_context(root, credential), SystemClock())


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path, make_authority(), Script())
    yield lab
    for server in lab.servers:
        server.stop()


def failure(client: HubApiClient) -> FleetError:
    with pytest.raises(FleetError) as caught:
        asyncio.run(client.enroll(REQUEST))
    return caught.value


# ---- first contact ------------------------------------------------------------------------------


def first_contact(url: str, fingerprint: str) -> Enrolled:
    async def scenario() -> Enrolled:
        client = await open_pinned(Claim(url, fingerprint, SECRET), SystemClock())
        return await client.enroll(REQUEST)

    return asyncio.run(scenario())


def test_the_pinned_root_alone_leads_to_an_enrolment(lab: Lab) -> None:
    lab.script.answer = send(200, codec.encode(ENROLLED))

    assert first_contact(lab.serve(), lab.authority.fingerprint) == ENROLLED
    assert lab.script.heard == [("/device/v1/enroll", codec.encode(REQUEST), "")]


def test_another_root_than_the_pinned_one_never_hears_the_secret(lab: Lab) -> None:
    url = lab.serve()

    with pytest.raises(FleetError) as caught:
        first_contact(url, make_authority().fingerprint)

    assert caught.value.code is Code.CERTIFICATE_INVALID
    assert lab.script.heard == []


def test_the_right_root_shown_by_a_server_of_another_never_hears_the_secret(lab: Lab) -> None:
    impostor = make_authority()
    path = lab.folder / "impostor.pem"
    path.write_text(key_pem() + impostor.issue("hub"))
    context = impostor.server_context(path, client_certificates=False)
    lab.servers.append(Server(lab.authority, context, lab.script))

    with pytest.raises(FleetError) as caught:
        first_contact(lab.servers[0].url, lab.authority.fingerprint)

    assert caught.value.code is Code.CERTIFICATE_INVALID
    assert lab.script.heard == []


def test_first_contact_with_nobody_says_the_hub_does_not_answer(lab: Lab) -> None:
    url = lab.serve()
    lab.servers.pop().stop()

    with pytest.raises(FleetError) as caught:
        first_contact(url, lab.authority.fingerprint)

    assert (caught.value.code, caught.value.retryable) == (Code.HUB_UNREACHABLE, True)


# ---- whom it trusts -----------------------------------------------------------------------------


def test_a_server_of_another_name_is_refused(lab: Lab) -> None:
    error = failure(lab.client(lab.serve(addresses=("127.0.0.2",))))

    assert error.code is Code.CERTIFICATE_INVALID
    assert "mismatch" in str(error)


def test_an_expired_server_is_refused(lab: Lab) -> None:
    error = failure(lab.client(lab.serve(valid=(-2 * DAY, -DAY))))

    assert error.code is Code.CERTIFICATE_INVALID
    assert "clock" in (error.hint or "")


def test_a_server_of_another_authority_is_refused(lab: Lab) -> None:
    client = HubApiClient(lab.serve(), lambda: pinned_context(make_authority().pem), SystemClock())

    assert failure(client).code is Code.CERTIFICATE_INVALID


def test_the_devices_certificate_is_shown_where_it_is_asked_for(lab: Lab) -> None:
    lab.script.answer = send(200, codec.encode(Renewed("chain")))
    client = lab.device(lab.serve(client_certificates=True), lab.authority)

    assert asyncio.run(client.renew("csr")) == "chain"
    assert [(path, who) for path, _, who in lab.script.heard] == [
        ("/device/v1/renew", "{'commonName': 'd1'}")
    ]


def test_a_credential_is_asked_for_by_image(lab: Lab) -> None:
    credential = Credential("bearer", token="t", expires=7)
    lab.script.answer = send(200, codec.encode(credential))
    client = lab.device(lab.serve(client_certificates=True), lab.authority)

    assert asyncio.run(client.credential(IMAGE)) == credential
    assert lab.script.heard[0][1] == b'{"image":"%s"}' % str(IMAGE).encode()


def test_a_hub_that_refuses_the_devices_certificate_is_told_apart(lab: Lab) -> None:
    client = lab.device(lab.serve(client_certificates=True), lab.authority, valid=(-2 * DAY, -DAY))

    assert failure(client).code is Code.CERTIFICATE_INVALID


# ---- answers ------------------------------------------------------------------------------------


def test_a_problem_comes_through_with_its_code_sentence_and_hint(lab: Lab) -> None:
    problem = Problem("profile-unknown", "no profile 'x'", "list them")
    lab.script.answer = send(404, codec.encode(problem))

    error = failure(lab.client(lab.serve()))

    assert (type(error), error.code, str(error), error.hint) == (
        NotFoundError,
        Code.PROFILE_UNKNOWN,
        "no profile 'x'",
        "list them",
    )


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (503, b'{"code":"busy","message":"m","hint":""}', Code.BUSY),
        (502, b"<html>bad gateway</html>", Code.HUB_UNREACHABLE),
        (500, b'{"code":"of-a-later-hub","message":"m"}', Code.HUB_UNREACHABLE),
        (404, b"<html>not found</html>", Code.REQUEST_INVALID),
        (302, b"", Code.REQUEST_INVALID),
        (200, b"", Code.MESSAGE_INVALID),
        (200, b"{}", Code.MESSAGE_INVALID),
        (200, b"\xff\xfe", Code.MESSAGE_INVALID),
    ],
)
def test_answers_that_are_no_success(lab: Lab, status: int, body: bytes, code: Code) -> None:
    lab.script.answer = send(status, body)

    assert failure(lab.client(lab.serve())).code is code


def test_half_an_answer_is_no_answer(lab: Lab) -> None:
    def half(handler: BaseHTTPRequestHandler) -> None:
        send(200, codec.encode(ENROLLED)[:40], length=400)(handler)
        handler.close_connection = True

    lab.script.answer = half

    assert failure(lab.client(lab.serve())).code is Code.HUB_UNREACHABLE


def test_an_answer_beyond_the_limit_is_refused(lab: Lab) -> None:
    lab.script.answer = send(200, b" " * (MAX_ANSWER_BYTES + 100_000))

    assert failure(lab.client(lab.serve())).code is Code.TOO_LARGE


def test_an_answer_that_never_ends_is_given_up(lab: Lab) -> None:
    gone = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not gone.wait(0.02):
            handler.wfile.write(b" ")

    lab.script.answer = drip
    try:
        error = failure(lab.client(lab.serve(), timeout_seconds=0.3))
    finally:
        gone.set()

    assert (type(error), error.code) == (UnavailableError, Code.HUB_UNREACHABLE)


def test_a_server_that_says_nothing_is_given_up(lab: Lab) -> None:
    answered = threading.Event()
    lab.script.answer = lambda _: answered.wait(5) and None
    try:
        error = failure(lab.client(lab.serve(), timeout_seconds=0.3))
    finally:
        answered.set()

    assert error.code is Code.HUB_UNREACHABLE
