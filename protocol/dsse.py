"""Signed documents: signatures over exact bytes, never over something re-serialised (DSSE v1).

Keys and algorithms are the caller's: this module is given functions that sign and verify.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from protocol import codec, strict_json
from protocol.errors import Code, DeniedError, InvalidError
from protocol.messages import Envelope, Signature

MAX_ENVELOPE_BYTES = 4 * 1024 * 1024

_T = TypeVar("_T", bound=msgspec.Struct)
Verify = Callable[[bytes, bytes, bytes], bool]  # (public key, signature, message) -> holds


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """Return the bytes that are signed: DSSE's PAE of type and payload."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(payload_type: str, payload: bytes, key_id: str, sign: Callable[[bytes], bytes]) -> bytes:
    """Return an encoded envelope with one signature."""
    signature = sign(pre_authentication_encoding(payload_type, payload))
    return codec.encode(Envelope(payload_type, payload, [Signature(key_id, signature)]))


def open_envelope(
    raw: bytes, payload_type: str, keys: Mapping[str, bytes], verify: Verify
) -> bytes:
    """Return the payload when one of `keys` signed it as `payload_type`.

    Raises:
        InvalidError: `message-invalid` or `too-large`, when it is no envelope.
        DeniedError: `signature-invalid`, for another type, an unknown key or a wrong signature.
    """
    envelope = codec.decode(raw, Envelope, limit=MAX_ENVELOPE_BYTES)
    if envelope.payload_type != payload_type:
        raise _refuse(
            f"a document of type {envelope.payload_type[:80]!r} came instead of {payload_type!r}"
        )
    message = pre_authentication_encoding(payload_type, envelope.payload)
    for signature in envelope.signatures:
        key = keys.get(signature.keyid)
        if key is not None and verify(key, signature.sig, message):
            return envelope.payload
    raise _refuse("no signature of the document verifies with a trusted key")


def read_payload(payload: bytes, kind: type[_T], *, limit: int = MAX_ENVELOPE_BYTES) -> _T:
    """Decode a verified payload; duplicate keys are refused although the signature holds."""
    strict_json.parse_object(
        payload, limit=limit, code=Code.MESSAGE_INVALID, what="signed document"
    )
    return codec.decode(payload, kind, limit=limit)


def _refuse(message: str) -> DeniedError:
    return DeniedError(
        message,
        code=Code.SIGNATURE_INVALID,
        hint="the hub's signing key and the one this device pinned differ: enrol the device again",
    )


__all__ = ["InvalidError", "open_envelope", "pre_authentication_encoding", "read_payload", "seal"]
