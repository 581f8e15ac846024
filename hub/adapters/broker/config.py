"""The configuration an external Mosquitto needs for `BrokerBus`, as text.

Pure: writes no file and starts nothing. Measured reasons for the values stand beside them.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from protocol.topics import ROOT, access_patterns

if TYPE_CHECKING:
    from pathlib import Path

_MIB = 1024 * 1024
_ITERATIONS = 101
SALT_BYTES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class MosquittoConfig:
    """What differs from site to site; every path is the broker's.

    Attributes:
        certificate: Server certificate chain, PEM.
        key: Its key.
        client_roots: Roots that device and hub certificates must chain to.
        access_file: Where the text of `render_access` will be.
        data_folder: Where the broker keeps sessions over a restart.
        revocation_list: CRL, re-read on SIGHUP; a list past its next update refuses everybody.
        admin_socket: Unix socket of the listener on which the hub ends sessions; its folder must
            be closed to everybody else.
        admin_password_file: Where the text of `render_password` will be.
    """

    host: str
    port: int
    certificate: Path
    key: Path
    client_roots: Path
    access_file: Path
    data_folder: Path
    revocation_list: Path | None = None
    admin_socket: Path | None = None
    admin_password_file: Path | None = None
    max_packet_bytes: int = 1 * _MIB
    max_connections: int = 20_000
    max_queued_messages: int = 100_000
    max_inflight_messages: int = 1_000


def render_mosquitto(config: MosquittoConfig) -> str:
    """Return mosquitto.conf."""
    lines = [
        "per_listener_settings true",
        "",
        "# a full queue drops acknowledged messages without a word: keep it long and the hub fast",
        f"max_queued_messages {config.max_queued_messages}",
        f"max_inflight_messages {config.max_inflight_messages}",
        f"max_packet_size {config.max_packet_bytes}",
        "persistence true",
        f"persistence_location {config.data_folder}/",
        "autosave_interval 1",
        "persistent_client_expiration 7d",
        "",
        f"listener {config.port} {config.host}",
        f"max_connections {config.max_connections}",
        f"certfile {config.certificate}",
        f"keyfile {config.key}",
        f"cafile {config.client_roots}",
        "tls_version tlsv1.2",
        "require_certificate true",
        "use_identity_as_username true",
        "# without this any device could end another's session by taking its client id",
        "use_username_as_clientid true",
        "allow_anonymous false",
        f"acl_file {config.access_file}",
    ]
    if config.revocation_list is not None:
        lines.append(f"crlfile {config.revocation_list}")
    if config.admin_socket is not None:
        lines += [
            "",
            "# the hub alone: here it takes the client id of a device it wants out",
            f"listener 0 {config.admin_socket}",
            "allow_anonymous false",
            f"password_file {config.admin_password_file}",
        ]
    return "\n".join(lines) + "\n"


def render_access(hub_user: str) -> str:
    """Return the access file: devices name their own topics, the hub names all of them."""
    write, read = access_patterns("%u")
    return "\n".join(
        [
            f"user {hub_user}",
            f"topic readwrite {ROOT}/#",
            "",
            f"pattern write {write}",
            f"pattern read {read}",
            "",
        ]
    )


def render_password(user: str, password: bytes, salt: bytes) -> str:
    """Return a password file with one user; `salt` is SALT_BYTES random bytes."""
    digest = hashlib.pbkdf2_hmac("sha512", password, salt, _ITERATIONS)
    encoded = [base64.b64encode(part).decode() for part in (salt, digest)]
    return f"{user}:$7${_ITERATIONS}${encoded[0]}${encoded[1]}\n"
