from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.claim import Claim, parse_claim
from protocol.errors import Code, InvalidError

FINGERPRINT = "ab" * 32
SECRET = "Zk3_-0123456789abcdef"


def token(url: str, fingerprint: str = FINGERPRINT, secret: str = SECRET) -> str:
    encoded = base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")
    return f"rw1.{encoded}.{fingerprint}.{secret}"


@pytest.mark.parametrize(
    "url",
    ["https://hub:8443", "https://10.0.0.1:8443", "https://[::1]:8443", "https://hub.example"],
)
def test_a_claim_says_where_the_hub_is_and_whom_to_trust(url: str) -> None:
    assert parse_claim(f"  {token(url)}\n") == Claim(url, FINGERPRINT, SECRET)


def test_a_slash_at_the_end_of_the_address_is_dropped() -> None:
    assert parse_claim(token("https://hub:1/")).hub_url == "https://hub:1"


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "rw1",
        "rw2" + token("https://hub:1")[3:],
        token("http://hub:1"),
        token("https://hub:1/path"),
        token("https://user@hub:1"),
        token("https://hub:0"),
        token("https://hub:99999"),
        token("https://"),
        token("https://hub:1?x=y"),
        token("https://hüb:1"),
        token("https://hub:1", FINGERPRINT.upper()),
        token("https://hub:1", FINGERPRINT[:-2]),
        token("https://hub:1", secret="short"),
        token("https://hub:1", secret="with space 0123456789"),
        token("https://hub:1", secret="x" * 257),
        f"rw1.!!!!.{FINGERPRINT}.{SECRET}",
        f"rw1.a.{FINGERPRINT}.{SECRET}",
        token("https://" + "h" * 3000),
    ],
)
def test_anything_else_is_refused(bad: str) -> None:
    with pytest.raises(InvalidError) as caught:
        parse_claim(bad)

    assert caught.value.code is Code.CLAIM_INVALID


def test_neither_an_error_nor_the_claim_shows_the_secret() -> None:
    with pytest.raises(InvalidError) as caught:
        parse_claim(token("http://hub:1"))

    assert (
        SECRET not in f"{caught.value} {caught.value.hint} {parse_claim(token('https://hub:1'))!r}"
    )


def refusal(text: str) -> Code | None:
    try:
        parse_claim(text)
    except InvalidError as error:
        return error.code
    return None


@given(st.text(max_size=300))
def test_arbitrary_text_is_a_claim_or_refused_as_one(text: str) -> None:
    assert refusal(text) in (None, Code.CLAIM_INVALID)
