"""uvicorn's HTTP connection, with the client's certificate in the scope and limits on the idle.

The certificate follows the ASGI TLS extension: `scope["extensions"]["tls"]["client_cert_chain"]`.
Half-sent headers and stalled bodies end after a while, which uvicorn leaves to a proxy in front.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class HubHttpProtocol(HttpToolsProtocol):
    """One connection.

    Attributes:
        header_seconds: How long a request's headers may take to arrive.
        body_stall_seconds: How long nothing of a body may arrive that the hub would read.
        goodbye_seconds: How long an idle client may take to close TLS when the hub stops.
    """

    header_seconds = 10.0
    body_stall_seconds = 60.0
    goodbye_seconds = 1.0
    _in_body = False

    def connection_made(self, transport: Any) -> None:
        """Look at the certificate once and start waiting for a request."""
        super().connection_made(transport)
        self._tls_extension = _tls_extension(transport.get_extra_info("ssl_object"))
        self._deadline: asyncio.TimerHandle | None = None
        self._await_progress(self.header_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Every piece of a body buys time; a trickle of headers does not."""
        if self._deadline is not None and self._in_body:
            self._await_progress(self.body_stall_seconds)
        super().data_received(data)

    def on_message_begin(self) -> None:
        """A request begins: its headers must be complete soon."""
        super().on_message_begin()
        self.scope["extensions"] = {"tls": self._tls_extension}
        self._in_body = False
        self._await_progress(self.header_seconds)

    def on_headers_complete(self) -> None:
        """The body follows, at its own pace as long as it moves."""
        self._in_body = True
        self._await_progress(self.body_stall_seconds)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole: the application may take its time."""
        self._in_body = False
        self._stop_waiting()
        super().on_message_complete()

    def shutdown(self) -> None:
        """Say goodbye; whoever has no request and does not answer it is not waited for."""
        super().shutdown()
        if self.transport.is_closing():
            self.loop.call_later(self.goodbye_seconds, self.transport.abort)

    def _await_progress(self, seconds: float) -> None:
        self._stop_waiting()
        self._deadline = self.loop.call_later(seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        if self._in_body and self.flow.read_paused:  # it is the hub that does not read
            self._await_progress(self.body_stall_seconds)
        elif not self.transport.is_closing():
            self.transport.abort()


def _tls_extension(ssl_object: Any) -> dict[object, object]:
    der = ssl_object.getpeercert(binary_form=True) if ssl_object else None
    chain = (ssl.DER_cert_to_PEM_cert(der),) if der else ()
    return {"client_cert_chain": chain, "server_cert": None, "tls_version": None}
