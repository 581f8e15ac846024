"""The rules for who may do what, without a network."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core.registry_access import MAX_SCOPES, Access, Action, Scope, intersect, parse_scopes

ALL = frozenset(Action)
PULL = frozenset({Action.PULL})
NAMES = st.sampled_from(["a", "a/b", "a/bc", "b/a", "team/app", "teamx/app"])
ACTIONS = st.frozensets(st.sampled_from(list(Action)))
SCOPES = st.builds(Scope, NAMES, st.none() | ACTIONS)
PATTERNS = st.lists(st.sampled_from(["*", "a/*", "team/*", "a", "b/a", "team/app"])).map(tuple)


@pytest.mark.parametrize(
    ("pattern", "repository", "matches"),
    [
        ("*", "any/thing", True),
        ("team/*", "team/app", True),
        ("team/*", "team/deep/app", True),
        ("team/*", "team", False),
        ("team/*", "teamx/app", False),
        ("team/app", "team/app", True),
        ("team/app", "team/app2", False),
        ("", "team/app", False),
    ],
)
def test_what_a_pattern_covers(pattern: str, repository: str, *, matches: bool) -> None:
    allowed = Access("x", pull=(pattern,)).allowed(repository)

    assert allowed == (PULL if matches else frozenset())


def test_who_may_push_may_pull_and_delete() -> None:
    assert Access("x", push=("a",)).allowed("a") == ALL


@pytest.mark.parametrize(
    ("text", "scopes"),
    [
        ("repository:a/b:pull", [Scope("a/b", PULL)]),
        ("repository:a:pull,push", [Scope("a", frozenset({Action.PULL, Action.PUSH}))]),
        ("repository:a:*", [Scope("a", None)]),
        ("repository:a:pull repository:b:pull", [Scope("a", PULL), Scope("b", PULL)]),
        ("repository:a:fly", [Scope("a", frozenset())]),
        ("registry:catalog:*", []),
        ("repository:UPPER:pull", []),
        ("repository:a:b:pull", []),
        ("", []),
    ],
)
def test_how_scopes_are_read(text: str, scopes: list[Scope]) -> None:
    assert list(parse_scopes([text])) == scopes


def test_the_number_of_scopes_is_bounded() -> None:
    assert len(parse_scopes(["repository:a:pull " * 1000])) == MAX_SCOPES


@given(pull=PATTERNS, push=PATTERNS, scopes=st.lists(SCOPES))
def test_nothing_is_granted_that_is_not_allowed_and_asked(
    pull: tuple[str, ...], push: tuple[str, ...], scopes: list[Scope]
) -> None:
    access = Access("x", pull, push)
    grants = intersect(access, scopes)
    for repository, actions in grants.items():
        asked = [s.actions for s in scopes if s.repository == repository]
        wanted = ALL if None in asked else frozenset().union(*(a for a in asked if a is not None))
        assert actions == access.allowed(repository) & wanted


@given(st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    parse_scopes([text])
