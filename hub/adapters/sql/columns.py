"""How values lie in columns: moments as integers, documents as JSON text, words of an enum as text.

The forms are the same in every database, so a dump of one can be read into another.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Dialect, Text
from sqlalchemy.types import TypeDecorator

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_MICROS = 86_400_000_000
_SECOND_MICROS = 1_000_000
_ENCODER = msgspec.json.Encoder()


def to_micros(moment: datetime) -> int:
    """Return an aware datetime as microseconds since 1970 UTC; exact. Naive ones: TypeError."""
    past = moment - _EPOCH
    return past.days * _DAY_MICROS + past.seconds * _SECOND_MICROS + past.microseconds


def from_micros(micros: int) -> datetime:
    """Return microseconds since 1970 as an aware datetime, UTC."""
    return _EPOCH + timedelta(microseconds=micros)


def to_json(value: Any) -> str:
    """Return a value as JSON text."""
    return _ENCODER.encode(value).decode()


class Moment(TypeDecorator[datetime]):
    """An aware datetime as microseconds since 1970 UTC."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Return what is stored."""
        del dialect
        return None if value is None else to_micros(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """Return what was stored."""
        del dialect
        return None if value is None else from_micros(value)


class Document(TypeDecorator[Any]):
    """A value of a given type as JSON text.

    Args:
        kind: Type the text is read as: a dict, a tuple, a dataclass.
    """

    impl = Text
    cache_ok = True

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.kind = kind
        self._decoder = msgspec.json.Decoder(kind)

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Return what is stored."""
        del dialect
        return None if value is None else to_json(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Return what was stored."""
        del dialect
        return None if value is None else self._decoder.decode(value)


class Word(TypeDecorator[StrEnum]):
    """A member of an enum by its value."""

    impl = Text
    cache_ok = True

    def __init__(self, words: type[StrEnum]) -> None:
        super().__init__()
        self.words = words

    def process_bind_param(self, value: StrEnum | None, dialect: Dialect) -> str | None:
        """Return what is stored."""
        del dialect
        return None if value is None else value.value

    def process_result_value(self, value: str | None, dialect: Dialect) -> StrEnum | None:
        """Return what was stored."""
        del dialect
        return None if value is None else self.words(value)
