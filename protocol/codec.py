"""Bytes to messages and back: strict, size-limited, one error for everything that is wrong."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from protocol.errors import Code, InvalidError

MAX_MESSAGE_BYTES = 2 * 1024 * 1024

_T = TypeVar("_T", bound=msgspec.Struct)
_ENCODER = msgspec.json.Encoder(order="deterministic")


def encode(message: msgspec.Struct) -> bytes:
    """Return the message as the bytes that go over the wire; equal messages give equal bytes."""
    return _ENCODER.encode(message)


def decode(raw: bytes, kind: type[_T], *, limit: int = MAX_MESSAGE_BYTES) -> _T:
    """Turn untrusted bytes into a message.

    Raises:
        InvalidError: `message-invalid`, or `too-large` beyond `limit` bytes.
    """
    if len(raw) > limit:
        raise InvalidError(
            f"a {kind.__name__} message is {len(raw)} bytes, the limit is {limit}",
            code=Code.TOO_LARGE,
            hint="send less at once",
        )
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidError(
            f"a {kind.__name__} message cannot be read: {str(error)[:200]}",
            code=Code.MESSAGE_INVALID,
            hint="its form is in docs/protocol.md",
        ) from error
