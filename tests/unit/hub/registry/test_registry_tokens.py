"""Tokens: what they carry, and every way they must not be accepted."""

import base64
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core.registry_access import Action
from hub.services.registry_tokens import RegistryTokens
from protocol.errors import Code, DeniedError, InvalidError

START = datetime(2030, 1, 1, tzinfo=UTC)


@dataclass
class StillClock:
    """Time that stands until it is set."""

    present: datetime = field(default=START)

    def now(self) -> datetime:
        return self.present

    def monotonic(self) -> float:
        return self.present.timestamp()

    async def sleep(self, seconds: float) -> None:
        self.present += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def tokens(clock: StillClock) -> RegistryTokens:
    return RegistryTokens(b"k" * 32, clock)


def refused(tokens: RegistryTokens, token: str) -> bool:
    with pytest.raises(DeniedError) as caught:
        tokens.verify(token)
    return caught.value.code == Code.TOKEN_INVALID


def test_a_minted_token_pulls_and_nothing_else(tokens: RegistryTokens) -> None:
    token, expires = tokens.mint("device:d1", ["a", "b/c"])

    bearer = tokens.verify(token)
    assert bearer.subject == "device:d1"
    assert bearer.grants == {"a": {Action.PULL}, "b/c": {Action.PULL}}
    assert expires == START.timestamp() + 300


def test_a_token_ends_with_its_time(tokens: RegistryTokens, clock: StillClock) -> None:
    token, _ = tokens.mint("d1", ["a"], ttl_seconds=60)
    clock.present = START + timedelta(seconds=59)
    tokens.verify(token)
    clock.present = START + timedelta(seconds=60)

    assert refused(tokens, token)


def test_no_token_lives_longer_than_five_minutes(tokens: RegistryTokens) -> None:
    _, expires = tokens.mint("d1", ["a"], ttl_seconds=10**9)

    assert expires == START.timestamp() + 300


def test_a_token_of_another_key_is_refused(tokens: RegistryTokens, clock: StillClock) -> None:
    token, _ = RegistryTokens(b"x" * 32, clock).mint("d1", ["a"])

    assert refused(tokens, token)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_changed_part_is_refused(tokens: RegistryTokens, part: int) -> None:
    parts = tokens.mint("d1", ["a"])[0].split(".")
    parts[part] = parts[part][:-2] + ("AA" if parts[part][-2:] != "AA" else "BB")

    assert refused(tokens, ".".join(parts))


def test_a_token_without_signature_is_refused(tokens: RegistryTokens) -> None:
    body = tokens.mint("d1", ["a"])[0].split(".")[1]
    header = base64.urlsafe_b64encode(json.dumps({"alg": "none"}).encode()).decode()

    assert refused(tokens, f"{header}.{body}.")


def test_a_token_too_long_is_refused(tokens: RegistryTokens) -> None:
    assert refused(tokens, "x" * 10**6)


@given(st.text())
def test_no_text_is_a_token(text: str) -> None:
    assert refused(RegistryTokens(b"k" * 32, StillClock()), text)


def test_a_short_key_is_refused(clock: StillClock) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        RegistryTokens(b"short", clock)


def test_a_malformed_repository_is_refused(tokens: RegistryTokens) -> None:
    with pytest.raises(InvalidError):
        tokens.mint("d1", ["../x"])
