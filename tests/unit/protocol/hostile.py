"""Bytes nobody should send: every reader of the wire meets all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest

from protocol.errors import Code, FleetError

_Raw = TypeVar("_Raw", str, bytes)
DEEP = 100_000
DOCUMENTS: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"hello",
    "cut short": b'{"a":',
    "bad UTF-8": b'{"a":"\xff\xfe"}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"a":1}',
    "half a surrogate pair": b'{"a":"\\ud800"}',
    "half a pair as a key": b'{"\\udfff":1}',
    "the same key twice": b'{"a":1,"a":2}',
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":-Infinity}',
    "1e400": b'{"a":1e400}',
    "an integer of 5000 digits": b'{"a":' + b"9" * 5000 + b"}",
    "an integer of 65 bits": b'{"a":18446744073709551616}',
    "100,000 brackets": b"[" * DEEP,
    "100,000 closed brackets": b"[" * DEEP + b"]" * DEEP,
    "100,000 braces": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "800 brackets": b'{"a":' + b"[" * 800 + b"]" * 800 + b"}",
    "an array": b"[1]",
    "null": b"null",
    "a text": b'"text"',
    "a NUL": b'{"a":"\\u0000"}\x00',
    "trailing bytes": b"{} {}",
    "2 MB of spaces": b" " * (2 * 1024 * 1024 + 1),
    "2 MB of digits": b"1" * (2 * 1024 * 1024 + 1),
    "2 MB in one text": b'{"a":"' + b"x" * (2 * 1024 * 1024) + b'"}',
}
each_document = pytest.mark.parametrize("raw", DOCUMENTS.values(), ids=DOCUMENTS)


def refusal(read: Callable[[_Raw], object], raw: _Raw) -> Code | None:
    """Return the code `read` refuses `raw` with, or None when it reads it."""
    try:
        read(raw)
    except FleetError as error:
        return error.code
    return None


def raises_only_ours(read: Callable[[bytes], object], raw: bytes) -> None:
    """Fail when `read` answers `raw` with anything but a FleetError of bounded length."""
    with pytest.raises(FleetError) as caught:
        read(raw)
    assert len(str(caught.value)) < 1000
    assert caught.value.hint
