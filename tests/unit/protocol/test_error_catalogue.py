"""One table of failures: total, consistent, and what an error carries."""

from __future__ import annotations

import re

import pytest

from protocol import errors
from protocol.errors import CATALOGUE, Code, Entry, FleetError, InvalidError

LEAVES = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, FleetError)
]


def test_every_code_has_a_row() -> None:
    assert set(CATALOGUE) == set(Code)


@pytest.mark.parametrize("code", list(Code))
def test_codes_are_lower_case_words(code: Code) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", code.value)


@pytest.mark.parametrize("code", list(Code))
def test_a_row_can_be_answered_and_exited_with(code: Code) -> None:
    entry = CATALOGUE[code]

    assert 400 <= entry.http_status < 600
    assert entry.exit_code in {1, 2, 3, 70}


@pytest.mark.parametrize("code", list(Code))
def test_exit_code_three_says_try_again_later(code: Code) -> None:
    entry = CATALOGUE[code]

    assert entry.retryable == (entry.exit_code == 3)


@pytest.mark.parametrize("code", list(Code))
def test_meanings_are_one_sentence(code: Code) -> None:
    meaning = CATALOGUE[code].meaning

    assert meaning
    assert not meaning.endswith(".")
    assert meaning[0].islower() or meaning.split()[0].isupper()


@pytest.mark.parametrize("kind", LEAVES)
def test_an_error_carries_its_row(kind: type[FleetError]) -> None:
    error = kind("the hub 'h' does not answer", code=Code.HUB_UNREACHABLE, hint="wait")

    assert str(error) == "the hub 'h' does not answer"
    assert error.hint == "wait"
    assert error.entry == Entry("the hub does not answer", 503, 3, retryable=True)
    assert error.retryable


def test_a_refusal_is_not_retryable() -> None:
    error = InvalidError("no", code=Code.ID_INVALID)

    assert not error.retryable
    assert error.hint is None
